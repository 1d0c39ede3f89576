"""What the outside must know of a backbone, without loading it or torch."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class WeightsFile:
    """A published file of base weights."""

    name: str
    """File name in the cache folder."""
    address: str
    """Where it is downloaded from."""
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
    weights: WeightsFile | None
    """The published file, or None where only random weights exist."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings in which this backbone departs from the method's defaults, by field name."""
