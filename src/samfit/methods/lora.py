"""`lora`: low-rank updates of the encoder's linear layers (LoRA, arXiv 2106.09685), through peft.

An adapted layer is W x + scale · B A x, B zero at the start; scale is alpha / rank, or alpha / √rank for
rsLoRA (arXiv 2312.03732). DoRA (arXiv 2402.09353) also learns the length of each row of W + scale · B A.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft import LoraConfig, LoraModel
from torch import Tensor, nn

from samfit.backbones.base import Backbone
from samfit.methods.adapter import Adapter
from samfit.options import LoraOptions

_FUSED = "attn.qkv"
_PARTS = ("q", "k", "v")


def build(backbone: Backbone, options: LoraOptions, first_block: int | None) -> "LoraAdapter":
    """Put updates into every block of a backbone from `first_block` on."""
    assert first_block is not None, "lora works inside the encoder"
    return LoraAdapter(backbone.blocks[first_block:], options)


class SplitLinear(nn.Module):
    """The linear layer of queries, keys and values as three, so that some of them can have an update."""

    def __init__(self, fused: nn.Linear):
        super().__init__()
        self.updated = True
        """Whether updates count. Without them the three run as the one layer that they were made of, because
        three products need not round as one does."""
        weights, biases = fused.weight.detach().chunk(3), fused.bias.detach().chunk(3)
        self.q, self.k, self.v = (_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to queries, keys and values (..., 3 · width)."""
        if self.updated:
            return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)
        return F.linear(x, *self._fused())

    def fuse(self) -> nn.Linear:
        """Return the three as one layer, without updates."""
        return _linear(*self._fused())

    def _fused(self) -> tuple[Tensor, Tensor]:
        parts = (self.q, self.k, self.v)  # peft's layers have the weight and the bias that they add to
        return torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer that holds these tensors themselves, not copies."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight)
    layer.bias = nn.Parameter(bias)
    return layer


class LoraAdapter(Adapter):
    """Updates that lie in the encoder's blocks, as layers of peft around the linear ones."""

    def __init__(self, blocks: Sequence[nn.Module], options: LoraOptions):
        super().__init__()
        self._split = [(block, _split(block)) for block in blocks if set(_PARTS) & set(options.targets)]
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # pyright: ignore[reportArgumentType] -- any number works
            target_modules=_names(blocks[0], options.targets),
            use_dora=options.dora,
            use_rslora=options.rslora,
        )
        # In a tuple, because as a module of this one it would list the backbone's tensors again.
        self._peft = (LoraModel(nn.ModuleList(blocks), config, "default"),)

    def enable(self, on: bool) -> None:
        """Switch the updates on or off; off, every layer gives the base's numbers to the last bit."""
        for _, layer in self._split:
            layer.updated = on
        if on:
            self._peft[0].enable_adapter_layers()
        else:
            self._peft[0].disable_adapter_layers()

    @torch.no_grad()
    def merge(self) -> None:
        """Add the updates to the weights and put the plain layers back, under their names."""
        self._peft[0].merge_and_unload()
        for block, layer in self._split:
            block.set_submodule(_FUSED, layer.fuse())


def _split(block: nn.Module) -> SplitLinear:
    """Split a block's layer of queries, keys and values, and return what takes its place."""
    fused = block.get_submodule(_FUSED)
    assert isinstance(fused, nn.Linear)
    layer = SplitLinear(fused)
    block.set_submodule(_FUSED, layer)
    return layer


def _names(block: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the names in a block of the linear layers that targets stand for."""
    names = []
    for target in targets:
        if target == "mlp":
            names += [
                f"mlp.{name}"
                for name, layer in block.get_submodule("mlp").named_modules()
                if isinstance(layer, nn.Linear)
            ]
        else:
            names.append(f"{_FUSED}.{target}" if target in _PARTS else f"attn.{target}")
    return names
