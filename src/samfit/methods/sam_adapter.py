"""`sam-adapter`: a sum of tokens and high frequencies, added through small projections after every block.

SAM-Adapter (arXiv 2304.09148) in the form that arXiv 2409.15889 compares with.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from samfit.backbones.base import UNCHANGED, Backbone, BlockAdapter
from samfit.methods.adapter import Adapter
from samfit.methods.high_frequency import high_frequency
from samfit.options import MethodOptions


def build(backbone: Backbone, options: MethodOptions, first_block: int | None) -> "SamAdapter":
    """Make the adapter for a backbone: as wide as its tokens, with its patches."""
    assert first_block is not None, "sam-adapter works inside the encoder"
    card = backbone.card
    return SamAdapter(card.architecture["width"], card.patch, card.depth, first_block)


def published_names(adapter: "SamAdapter") -> dict[str, str]:
    """Return for every tensor of the adapter's state dict its name in the published model's.

    The published state dict repeats the shared up projection under every block
    (`task_adapter_blocks.N.up_projection`); those names are not listed.
    """
    modules = {"tokens": "patch_embed_tune", "patches": "HFC_tune", "up": "task_adapter_up"} | {
        f"down.{index}": f"task_adapter_blocks.{index}.down_projection" for index in adapter.down
    }
    return {
        f"{ours}.{tensor}": f"image_encoder.{theirs}.{tensor}"
        for ours, theirs in modules.items()
        for tensor in ("weight", "bias")
    }


def high_frequency_patches(frame: Tensor, patch: int) -> Tensor:
    """Cut the high-frequency image of model frames (B, 3, N, N) into patches (B, g², 3 · patch²).

    Patches in rows; in each its values by channel, row, column.
    """
    return F.unfold(high_frequency(frame), patch, stride=patch).transpose(1, 2)


class SamAdapter(Adapter):
    """One sum of the image's tokens and high frequencies, and from it what each block's tokens are given.

    The sum t is W_t · tokens + W_p · patches, a quarter as wide as the tokens. a_i = up(GELU(down_i(t))): a_k
    is added before block k = `first_block`, a_(i+1) after every block i from there on. Each down projection
    is named by its i; `up` is one for all.
    """

    def __init__(self, width: int, patch: int, depth: int, first_block: int = 0, hidden: int = 32):
        super().__init__()
        self.patch = patch
        self.first_block = first_block
        self.tokens = nn.Linear(width, width // 4)
        self.patches = nn.Linear(3 * patch**2, width // 4)
        self.down = nn.ModuleDict(
            {str(index): nn.Linear(width // 4, hidden) for index in range(first_block, depth + 1)}
        )
        self.up = nn.Linear(hidden, width)

    def shared(self, frame: Tensor, tokens: Tensor) -> Tensor:
        """Return t (…, width / 4) of model frames (B, 3, N, N) and their first tokens (…, width)."""
        detail = self.patches(high_frequency_patches(frame, self.patch))
        return self.tokens(tokens) + detail.unflatten(1, tokens.shape[1:-1])

    def addition(self, index: int, shared: Tensor) -> Tensor:
        """Return a_index (…, width) for t (…, width / 4), `index` from `first_block` to the depth."""
        return self.up(F.gelu(self.down[str(index)](shared)))

    def block(self, index: int) -> BlockAdapter:
        """Return what is added to block `index`; before `first_block` nothing."""
        return UNCHANGED if index < self.first_block else _Additions(self, index)


@dataclass(frozen=True)
class _Additions(BlockAdapter):
    """What one block's tokens are given."""

    adapter: SamAdapter
    index: int

    def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
        """Add to the tokens that enter the first adapted block."""
        if self.index != self.adapter.first_block:
            return tokens
        assert shared is not None
        return tokens + self.adapter.addition(self.index, shared)

    def after(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
        """Add to the tokens that leave the block."""
        assert shared is not None
        return tokens + self.adapter.addition(self.index + 1, shared)
