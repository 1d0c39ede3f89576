"""Images as RGB, masks as 0 and 1, and the rule by which the masks of a data set are read.

How mask values are read is decided once for a whole data set (`decide_reading`), never file by file, because
one file alone does not show whether a 1 in it is foreground or noise:

- Class values given (`--mask-values`): each pixel belongs to the nearest of 0 and the given values.
- Grey masks, and RGB(A) masks by their luminance: if every mask of the set is two-valued, holding nothing
  but 0 and 1 or nothing but 0 and the top of its type (1, 255 or 65535), all that is above 0 is foreground.
  So 0/1 and 0/255 masks of 8 and 16 bits may be mixed, and none of them becomes empty. Otherwise, with grey
  borders or the noise of JPEG, foreground is above half of the type's range (8 bit: above 127).
- Palette masks: by the luminance of their colours, at half, if all colours in use are black or white;
  else by index, above the first entry, if no mask holds an index above 1 (so a dark red 1 is foreground);
  else by luminance. With class values: by index if all indexes in use are 0 or given values.

A value that the rule reads in a doubtful way (a third value, or nothing above half) is reported by
`samfit.data.inspect`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from samfit.data.decoding import Decoded, Pixels, decode, decoded_size
from samfit.errors import DataError
from samfit.types import Sample


def read_image(path: Path, page: int | None = None) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) RGB, 0…255, upright.

    16 bits are scaled by the range of the type (65535 to 255), never cut; grey becomes three equal channels;
    alpha is laid over black; CMYK and palette are converted; EXIF orientation is applied.
    Raises `DataError` as `samfit.data.decoding.decode` does.
    """
    return to_rgb(decode(path, page))


def image_size(path: Path, page: int | None = None) -> tuple[int, int]:
    """Return (height, width) of the upright image in pixels, from the header alone.

    Raises `DataError` for what the header shows to be wrong.
    """
    return decoded_size(path, page)


def to_rgb(decoded: Decoded) -> NDArray[np.uint8]:
    """Turn decoded pixels into (H, W, 3) RGB, 0…255."""
    pixels = decoded.pixels if decoded.palette is None else decoded.palette[decoded.pixels]
    if decoded.top == 1:
        pixels = pixels * 255
    elif decoded.top == 65535:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    eight_bit = pixels.astype(np.uint8)
    return eight_bit if eight_bit.ndim == 3 else np.repeat(eight_bit[..., None], 3, axis=2)


@dataclass(frozen=True)
class MaskReading:
    """How mask values become foreground, in a data set as a whole."""

    foreground: Literal["above-zero", "above-half"] = "above-half"
    """For grey masks without class values."""
    values: dict[str, int] = field(default_factory=dict)
    """Class to its grey value; empty if masks are binary."""
    palette: Literal["index", "luminance"] | None = None
    """What counts of palette masks; None if the data set has none."""

    def describe(self) -> str:
        """Return the rule in words, for people."""
        if self.values:
            classes = ", ".join(f"{value} {name}" for name, value in self.values.items())
            rule = f"values 0 background, {classes}: each pixel belongs to the nearest"
        elif self.foreground == "above-zero":
            rule = "values 0/1 or 0/largest: above 0 is foreground"
        else:
            rule = "above half of the range is foreground (8 bit: above 127)"
        return rule if self.palette is None else f"{rule}; palette masks by {self.palette}"

    def grey(self, values: Pixels, top: int, luminance: Pixels | None) -> tuple[Pixels, int]:
        """Return the values that count, and the top of their range.

        `luminance`: (256,) luminance of each palette index, or None if `values` are grey already.
        """
        if luminance is None:
            return values, top
        return (luminance[values], 255) if self.palette == "luminance" else (values, 255)

    def is_foreground(
        self, values: Pixels, top: int, luminance: Pixels | None, class_name: str
    ) -> NDArray[np.bool_]:
        """Return which of the raw values of one file belong to `class_name`, in the shape of `values`."""
        grey, top = self.grey(values, top, luminance)
        if self.values:
            return _nearest(self.values, top)[grey] == list(self.values).index(class_name) + 1
        rule = self.foreground
        if luminance is not None:
            rule = "above-half" if self.palette == "luminance" else "above-zero"
        return grey > (0 if rule == "above-zero" else top // 2)


def _nearest(values: dict[str, int], top: int) -> NDArray[np.intp]:
    """Return, for each grey value up to `top`, 0 for background or the position of the nearest class + 1."""
    anchors = np.array([0, *values.values()])
    return np.abs(np.arange(top + 1)[:, None] - anchors).argmin(axis=1)


@dataclass(frozen=True)
class MaskLevels:
    """What values one mask file holds: enough to decide how it is read, without its pixels."""

    path: Path
    height: int
    width: int
    counts: dict[int, int]
    """Grey value (palette: index) to number of pixels, sorted by value."""
    top: int
    """Largest value that the type can hold: 1, 255 or 65535."""
    luminance: NDArray[np.uint8] | None
    """(256,) luminance of each palette index, or None for grey and colour masks."""
    areas: frozenset[int]
    """Values that fill areas, unlike those of a smooth border, which are thin lines."""
    lossy: bool
    """Whether the file is a JPEG."""
    kind: str
    """Colours and bits of the file, as `Decoded.kind`."""

    def foreground_pixels(self, reading: MaskReading, class_name: str) -> int:
        """Return how many pixels belong to `class_name`."""
        values, counts = np.array(list(self.counts), dtype=np.uint16), np.array(list(self.counts.values()))
        return int(counts[reading.is_foreground(values, self.top, self.luminance, class_name)].sum())


def mask_levels(path: Path) -> MaskLevels:
    """Decode a mask and return what values it holds. Raises `DataError` if it cannot be read."""
    decoded = decode(path)
    values, luminance = _grey(decoded)
    histogram = np.bincount(values.ravel())
    counts = {int(value): int(histogram[value]) for value in np.flatnonzero(histogram)}
    # A value fills an area if a thousandth of the picture remains of it after a pixel is taken off all round.
    frequent = [value for value, count in counts.items() if count >= values.size / 200]
    areas = frozenset(
        value
        for value in frequent
        if cv2.erode((values == value).astype(np.uint8), np.ones((3, 3), np.uint8)).sum()
        >= max(1, values.size / 1000)
    )
    height, width = values.shape
    return MaskLevels(path, height, width, counts, decoded.top, luminance, areas, decoded.lossy, decoded.kind)


def decide_reading(masks: Iterable[MaskLevels], values: dict[str, int] | None = None) -> MaskReading:
    """Decide how the masks of a data set are read, from all of them; the module's text states the rule.

    `values`: class to grey value, as the user gave them, or None.
    """
    everything = list(masks)
    grey = [mask for mask in everything if mask.luminance is None]
    palette = [mask for mask in everything if mask.luminance is not None]
    two_valued = all(set(mask.counts) <= {0, 1} or set(mask.counts) <= {0, mask.top} for mask in grey)
    rule = _palette_rule(palette, values or {}) if palette else None
    above_zero = two_valued and (bool(grey) or rule == "index")
    return MaskReading("above-zero" if above_zero else "above-half", dict(values or {}), rule)


def _palette_rule(masks: list[MaskLevels], values: dict[str, int]) -> Literal["index", "luminance"]:
    used = set().union(*(mask.counts for mask in masks))
    if values:
        return "index" if used <= {0, *values.values()} else "luminance"
    colours = {
        int(mask.luminance[index]) for mask in masks if mask.luminance is not None for index in mask.counts
    }
    return "luminance" if colours <= {0, 255} or max(used) > 1 else "index"


def read_masks(sample: Sample, reading: MaskReading, classes: Sequence[str]) -> NDArray[np.float32]:
    """Read the masks of a sample as (C, H, W) in 0…1: for each class the mean over its raters.

    Raises `DataError` if a file cannot be read or the files differ in size.
    """
    classes_of: dict[Path, list[str]] = {}
    for name in classes:
        for path in sample.masks[name]:
            classes_of.setdefault(path, []).append(name)
    read = {path: _read_classes(path, reading, names) for path, names in classes_of.items()}
    if len({masks.shape[1:] for masks in read.values()}) > 1:
        sizes = ", ".join(f"{path} {masks.shape[2]} x {masks.shape[1]}" for path, masks in read.items())
        raise DataError(f"{sample.image}: its masks differ in size: {sizes}")
    return np.stack(
        [
            np.mean([read[path][classes_of[path].index(name)] for path in sample.masks[name]], axis=0)
            for name in classes
        ]
    ).astype(np.float32)


def _read_classes(path: Path, reading: MaskReading, classes: Sequence[str]) -> NDArray[np.float32]:
    """Decode a mask file once and return (C, H, W) of 0 and 1."""
    decoded = decode(path)
    values, luminance = _grey(decoded)
    return np.stack([reading.is_foreground(values, decoded.top, luminance, name) for name in classes]).astype(
        np.float32
    )


def _grey(decoded: Decoded) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """Return (H, W) grey values or indexes, and each index's luminance."""
    luminance = None if decoded.palette is None else _luminance(decoded.palette).astype(np.uint8)
    values = _luminance(decoded.pixels) if decoded.pixels.ndim == 3 else decoded.pixels
    return values, luminance


def _luminance(colours: Pixels) -> Pixels:
    """Return the luminance (ITU-R BT.601, rounded) of (..., 3) RGB, in the same type."""
    weighted = colours.astype(np.uint32) @ np.array([299, 587, 114], dtype=np.uint32)
    return ((weighted + 500) // 1000).astype(colours.dtype)
