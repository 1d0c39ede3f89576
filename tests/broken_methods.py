"""Methods written outside the package: two that keep every promise, and for every check some that do not.

All are one module, as a `MethodRow` names it; an option says which of them `build` makes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samfit.backbones.base import UNCHANGED, Backbone, BlockAdapter
from samfit.declare import setting
from samfit.methods.adapter import Adapter
from samfit.methods.row import MethodRow
from samfit.options import BlockOptions, MethodOptions


class MergesAnyway(MethodRow):
    def require_mergeable(self) -> None:
        """Let `merge` go on, whatever the row says."""


class Options(MethodOptions):
    kind: str = setting("Shift", "class of the adapter", "Method")


class InsideOptions(BlockOptions):
    kind: str = setting("Inside", "class of the adapter", "Method")


BESIDE = MethodRow(
    name="beside",
    summary="a learned vector is added to the embedding",
    module="broken_methods",
    paper="none",
    trains=("mask_decoder",),
    gradient_from=None,
    identity_at_start=True,
    reads_image=False,
    mergeable=False,
    defaults={},
    options=Options,
)
INSIDE = MethodRow(
    name="inside",
    summary="a learned vector is added to the tokens before every block",
    module="broken_methods",
    paper="none",
    trains=("mask_decoder",),
    gradient_from=0,
    identity_at_start=True,
    reads_image=False,
    mergeable=False,
    defaults={},
    options=InsideOptions,
)


def build(backbone: Backbone, options: Options | InsideOptions, first_block: int | None) -> Adapter:
    return globals()[options.kind](backbone, first_block)


class Shift(Adapter):
    """Sound."""

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(backbone.card.embedding_width, 1, 1))
        self.others = (backbone,)  # in a tuple, so that its tensors are not this module's too

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return embedding + self.shift


class BeginsElsewhere(Shift):
    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        nn.init.ones_(self.shift)


class ForgetsToSwitchOff(Shift):
    """Changes the backbone's own modules, and has no `enable`."""

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        backbone.image_encoder.neck.register_forward_hook(lambda neck, inputs, out: out + self.shift)


class StaysOff(Shift):
    on = True

    def enable(self, on: bool) -> None:
        self.on = False

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return embedding + self.shift * self.on


class FreezesWhenOff(Shift):
    def enable(self, on: bool) -> None:
        self.shift.requires_grad_(False)


class HidesATensor(Shift):
    """What is learned is in no module, so that no optimizer and no file knows it."""

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        self.hidden = (torch.zeros(backbone.card.embedding_width, 1, 1, requires_grad=True),)

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return super().adapt_embedding(embedding, extra, weight) + self.hidden[0]


class Thaws(Shift):
    """Trains a part of the prompt encoder, which the row does not name."""

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        self.others[0].prompt_encoder.requires_grad_(True)
        return super().adapt_embedding(embedding, extra, weight)


class HasAnIdleTensor(Shift):
    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        self.idle = nn.Parameter(torch.ones(1))


class ChangesAFrozenTensor(Shift):
    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        if self.training:
            with torch.no_grad():
                next(self.others[0].prompt_encoder.parameters()).mul_(0.99)
        return super().adapt_embedding(embedding, extra, weight)


class WakesAFrozenModule(Shift):
    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        self.others[0].prompt_encoder.train(self.training)
        return super().adapt_embedding(embedding, extra, weight)


class LeavesABuffer(Shift):
    """Keeps what it needs where no adapter file looks."""

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        backbone.register_buffer("counted", torch.zeros(1))


class Remembers(Shift):
    """Answers with what training left in a tensor that is neither parameter nor buffer."""

    seen = 0.0

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        if self.training:
            self.seen = embedding.detach().mean()
        return super().adapt_embedding(embedding, extra, weight) + self.seen


class MergesUnderAnotherName(Shift):
    def merge(self) -> None:
        self.others[0].register_parameter("shift", self.shift)


class LosesPrecision(Shift):
    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        large = 1e4 * torch.eye(embedding.shape[1])[..., None, None]
        return (
            super().adapt_embedding(embedding, extra, weight) + F.conv2d(embedding, large) - 1e4 * embedding
        )


class HardlyMoves(Shift):
    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return embedding + 1e-6 * self.shift


class NormalisesEachProcess(Shift):
    """Takes statistics over the images of one process."""

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__(backbone, first_block)
        self.norm = nn.BatchNorm2d(backbone.card.embedding_width)

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return self.norm(embedding) + self.shift


class ReadsAValue(Shift):
    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        return embedding + self.shift if embedding.mean() < 100 else embedding


class Before(nn.Module, BlockAdapter):
    def __init__(self, width: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))

    def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
        return tokens + self.shift


class Inside(Adapter):
    """Sound."""

    made = Before

    def __init__(self, backbone: Backbone, first_block: int | None):
        super().__init__()
        width, depth = backbone.card.architecture["width"], backbone.card.depth
        self.first = self.first_of(first_block or 0, depth)
        self.blocks = nn.ModuleDict({str(index): self.made(width) for index in range(self.first, depth)})

    def first_of(self, first_block: int, depth: int) -> int:
        return first_block

    def block(self, index: int) -> BlockAdapter:
        return self.blocks[str(index)] if index >= self.first else UNCHANGED


class LastBlockAlone(Inside):
    def first_of(self, first_block: int, depth: int) -> int:
        return depth - 1


class KeepsEverywhere(Inside):
    """Keeps tensors in every block, whatever block comes first."""

    class made(Before):
        def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
            with torch.enable_grad():
                return super().before(tokens * self.shift.exp(), shared)

    def first_of(self, first_block: int, depth: int) -> int:
        return 0


class DrawsNumbers(Inside):
    """Gives another answer when a block is run again in backward."""

    class made(Before):
        def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
            return super().before(F.dropout(tokens, 0.1, self.training), shared)


class MixesImages(Inside):
    """Lets every image of a batch see the others."""

    class made(Before):
        def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
            return super().before(tokens + tokens.mean(0), shared)
