"""`medical-adapter`: two small adapters in every block (Medical SAM Adapter, arXiv 2304.12620)."""

import torch.nn.functional as F
from torch import Tensor, nn

from samfit.backbones.base import UNCHANGED, Backbone, BlockAdapter
from samfit.methods.adapter import Adapter
from samfit.options import MethodOptions

_TO_PUBLISHED = {"space": "Space_Adapter", "mlp": "MLP_Adapter", "fc1": "D_fc1", "fc2": "D_fc2"}


def build(backbone: Backbone, options: MethodOptions, first_block: int | None) -> "MedicalAdapter":
    """Make the adapters of every block from `first_block` on, a quarter as wide as the tokens inside."""
    assert first_block is not None, "medical-adapter works inside the encoder"
    return MedicalAdapter(backbone.card.architecture["width"], first_block, backbone.card.depth)


def published_names(adapter: "MedicalAdapter") -> dict[str, str]:
    """Return for every tensor of the adapter its name in the published checkpoint.

    The published blocks hold a `Depth_Adapter` too, for volumes; images do not use it, and it has no tensor
    here.
    """
    return {
        name: "image_encoder." + ".".join(_TO_PUBLISHED.get(part, part) for part in name.split("."))
        for name in adapter.state_dict()
    }


class Bottleneck(nn.Module):
    """Two linear layers with GELU between them, a quarter as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, width // 4)
        self.fc2 = nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class MedicalBlock(nn.Module, BlockAdapter):
    """The two adapters of one block."""

    scale = 0.5
    """Share of the adapter beside the MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.space = Bottleneck(width)
        self.mlp = Bottleneck(width)

    def after_attention(self, attended: Tensor) -> Tensor:
        """Add to what attention gave (..., width) its own adaptation."""
        return attended + self.space(attended)

    def beside_mlp(self, mapped: Tensor, normed: Tensor) -> Tensor:
        """Add to what the MLP gave (..., width) the adaptation of what it was given (..., width)."""
        return mapped + self.scale * self.mlp(normed)


class MedicalAdapter(Adapter):
    """A `MedicalBlock` for every encoder block from the first adapted one on, named by the block's index."""

    def __init__(self, width: int, first_block: int, depth: int):
        super().__init__()
        self.first_block = first_block
        self.blocks = nn.ModuleDict({str(index): MedicalBlock(width) for index in range(first_block, depth)})

    def block(self, index: int) -> BlockAdapter:
        """Return the adapters of block `index`, or nothing before the first adapted one."""
        if index < self.first_block:
            return UNCHANGED
        return self.blocks[str(index)]  # pyright: ignore[reportReturnType]
