"""What the outside must know of a backbone, without loading it or torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

_CELLS_AT_ONCE = 64**2


@dataclass(frozen=True)
class WeightsFile:
    """A published file of base weights."""

    name: str
    """File name in the cache folder, or beside this module if it ships with samfit."""
    address: str | None
    """Where it is downloaded from, or None if it ships with samfit."""
    size: int | None
    """Bytes, or None where the publisher does not say."""
    sha256: str | None
    """Hash of the file, or None where none is published: then the hash of the first download is kept."""
    licence: str
    """Under what terms the weights may be used."""


@dataclass(frozen=True)
class BackboneCard:
    """One row of `BACKBONES`: the facts of a backbone that everything else reads from here."""

    name: str
    summary: str
    module: str
    """Module under `samfit.backbones` whose `build(card, image_size, fit)` makes it."""
    architecture: dict[str, Any] = field(repr=False)
    """Numbers that `build` needs: widths, depths, heads."""
    paper: str
    image_size: int
    """Side of the model frame that the backbone was made for, and the default."""
    patch: int
    """Pixels a side of one cell of the grid; image sizes are multiples of it."""
    depth: int
    """Number of encoder blocks."""
    embedding_width: int
    mean: tuple[float, float, float]
    """Per channel, in 0…255."""
    std: tuple[float, float, float]
    """Per channel, in 0…255."""
    fit: Literal["pad", "squeeze"]
    """How an image meets the square, unless the user says otherwise."""
    resampling: Literal["pillow", "torch"]
    upsampling: Literal["bilinear", "bicubic"]
    negative_clicks: bool
    """Whether the prompt encoder knows background clicks."""
    prompt_slots: int | None
    """Largest number of clicks and corners of a box in one prompt, or None for any number."""
    weights: WeightsFile
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings in which this backbone departs from the method's defaults, by field name."""
    first_class_mask: int = 1
    """The mask of the decoder that is the first of several classes; the next ones follow."""
    spelling: dict[str, str] = field(default_factory=dict, repr=False)
    """Pieces of the published names that a variant's files spell otherwise: the usual one to theirs."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """How a published training code built this backbone, by the code's name: the fields that differ."""

    def variant(self, name: str | None) -> "BackboneCard":
        """Return the card as the published code `name` builds it, or this card for None."""
        if name is None:
            return self
        changes = self.variants[name]
        architecture = self.architecture | changes.get("architecture", {})
        return replace(self, **changes | {"architecture": architecture})

    def spelled(self, name: str) -> str:
        """Return a published name as the files of this card spell it."""
        for usual, theirs in self.spelling.items():
            name = name.replace(usual, theirs)
        return name

    def images_at_once(self, image_size: int) -> int:
        """Return how many images pass together where each is on its own: one of 1024 px, more if smaller."""
        return max(1, _CELLS_AT_ONCE * self.patch**2 // image_size**2)
