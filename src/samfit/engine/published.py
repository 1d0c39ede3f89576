"""The checkpoints that published training codes write: what tells them apart, and what each tensor is here.

One row a kind, read by `import` and `export` alike.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from torch import Tensor

from samfit.backbones.card import BackboneCard
from samfit.methods.adapted import AdaptedModel


@dataclass(frozen=True)
class PublishedKind:
    """What one published training code saves: a whole model, adapter included."""

    name: str
    method: str
    variant: str | None
    """How it builds its backbones (`card.variants`)."""
    modules: tuple[str, ...]
    """The families of backbones that it builds (`card.module`)."""
    marker: str
    """Part of a tensor's name that only checkpoints of this kind have."""
    size_table: str | None
    """The tensor of a block with global attention, by the block's index, whose length tells the image size;
    None where the training code works at the backbone's own size only."""
    entry: str | None
    """The entry of the file that holds the tensors, or None where they are the whole file."""
    most_classes: int
    """Number of masks that its model can give at once without another shape."""
    repeats: tuple[str, str, str] | None = None
    """A tensor that the file repeats: of each name that the first fits, the repetition and the original."""
    unused: tuple[str, str] | None = None
    """Tensors that no image passes: of each name that the first fits, one of the same shape."""

    def builds(self, card: BackboneCard) -> bool:
        """Return whether the training code has this backbone."""
        return card.module in self.modules and (self.variant is None or self.variant in card.variants)

    def image_size(self, content: Mapping[str, Tensor], card: BackboneCard) -> int:
        """Return the image size that a checkpoint was made at."""
        block = next(iter(card.architecture.get("global_blocks", (0,))))
        table = content.get(self.size_table.format(block)) if self.size_table else None
        if table is None or not table.ndim:
            return card.image_size
        return (len(table) + 1) // 2 * card.patch

    def repetitions(self, names: Iterable[str]) -> dict[str, str]:
        """Return every repetition with the name of its original, for the names of an adapter's tensors."""
        if self.repeats is None:
            return {}
        pattern, repetition, original = self.repeats
        matches = [match for name in names if (match := re.fullmatch(pattern, name))]
        return {match.expand(repetition): match.expand(original) for match in matches}

    def left_out(self, names: Iterable[str]) -> dict[str, str]:
        """Return every unused tensor with one of the same shape, for the names of an adapter's tensors."""
        if self.unused is None:
            return {}
        pattern, unused = self.unused
        return {match.expand(unused): name for name in names if (match := re.fullmatch(pattern, name))}


KINDS: tuple[PublishedKind, ...] = (
    PublishedKind(
        name="CAD",
        method="cad",
        variant=None,
        modules=("sam",),
        marker="conv_adapter.",
        size_table=None,
        entry=None,
        most_classes=1,
    ),
    PublishedKind(
        name="CAD's SAM-Adapter",
        method="sam-adapter",
        variant=None,
        modules=("sam",),
        marker="task_adapter_up.",
        size_table=None,
        entry=None,
        most_classes=1,
        repeats=(
            r"(image_encoder)\.task_adapter_blocks\.(\d+)\.down_projection\.(\w+)",
            r"\1.task_adapter_blocks.\2.up_projection.\3",
            r"\1.task_adapter_up.\3",
        ),
    ),
    PublishedKind(
        name="Medical SAM Adapter",
        method="medical-adapter",
        variant="medical-sam-adapter",
        modules=("sam", "efficient_sam"),
        marker=".Space_Adapter.",
        size_table="image_encoder.blocks.{}.attn.rel_h",
        entry="state_dict",
        most_classes=4,
        unused=(r"(image_encoder\.blocks\.\d+)\.Space_Adapter\.(.+)", r"\1.Depth_Adapter.\2"),
    ),
)
UNSUPPORTED: Mapping[str, str] = MappingProxyType({".lora_A": "Medical SAM Adapter's LoRA"})
"""Part of a name to the kind of checkpoint that has it, for those that are known and cannot be imported."""


def kind_of(names: Iterable[str]) -> PublishedKind | None:
    """Return the kind of checkpoint that has tensors of these names, or None."""
    every = list(names)
    return next((kind for kind in KINDS if any(kind.marker in name for name in every)), None)


def adapter_names(model: AdaptedModel) -> dict[str, str]:
    """Return for every tensor of the method's own modules its published name."""
    return import_module(model.row.module).published_names(model.adapter)
