"""The look at a whole data set: `samfit doctor`, and what every training does before its first step.

Every image and every mask is decoded once; what is wrong with single files is collected, not raised.
"""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samfit.data.decoding import decode
from samfit.data.duplicates import BITS, Duplicate, PictureHash, Progress, Seen, find_duplicates, picture_hash
from samfit.data.reading import MaskLevels, MaskReading, decide_reading, mask_levels, to_rgb
from samfit.data.sources.row import Fault, Found
from samfit.errors import DataError
from samfit.types import Sample

JPEG_NOISE = 1 / 8
"""Values of a JPEG mask within this share of the range from an expected value are taken for noise."""
_GROUPS_NAMED = 5
"""Groups that a message names, of those that lie in several splits."""


@dataclass(frozen=True)
class Inspection:
    """What a data set holds and what is wrong with it."""

    reading: MaskReading
    """How every mask of the set is to be read."""
    faults: tuple[Fault, ...]
    """Those of pairing and those of the files."""
    classes: tuple[str, ...]
    images: dict[str, int]
    """Split to the number of its images."""
    sizes: dict[str, int]
    """`width x height` to how many images have it, the most frequent first."""
    kinds: dict[str, int]
    """Colours and bits a channel (`RGB, 8 bit`) to how many images have them, the most frequent first."""
    mask_kinds: dict[str, int]
    """The same of mask files."""
    duplicates: tuple[Duplicate, ...]
    """Images that show the picture of an earlier one."""
    groups: dict[str, dict[str, int]]
    """Group to the number of its images in each split where it has any; empty if nobody named groups."""
    empty_masks: dict[str, int]
    """Class to the number of images in which no rater drew it."""
    foreground_share: dict[str, float]
    """Class to its mean share of the image area, 0…1, over images and raters."""
    read_as: dict[str, str]
    """Each frequent mask value (`128`; of a palette `index 1`) to the class that it was read as."""

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults because of which the set cannot be used as it is."""
        return tuple(fault for fault in self.faults if fault.level == "error")

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types, for `doctor --json` and the run folder."""
        return {
            "reading": {
                "rule": self.reading.describe(),
                "foreground": self.reading.foreground,
                "values": self.reading.values,
                "palette": self.reading.palette,
            },
            "faults": [
                {"level": fault.level, "path": str(fault.path), "message": fault.message}
                for fault in self.faults
            ],
            "classes": list(self.classes),
            "images": self.images,
            "sizes": self.sizes,
            "kinds": self.kinds,
            "mask_kinds": self.mask_kinds,
            "duplicates": [
                {
                    "first": str(pair.first.image),
                    "second": str(pair.second.image),
                    "splits": [pair.first.split, pair.second.split],
                    "equal_pixels": pair.bits is None,
                    "differing_bits": pair.bits or 0,
                }
                for pair in self.duplicates
            ],
            "groups": self.groups,
            "empty_masks": self.empty_masks,
            "foreground_share": self.foreground_share,
            "read_as": self.read_as,
        }


def inspect(found: Found, *, page: int | None = None, progress: Progress | None = None) -> Inspection:
    """Decode every image and mask of `found` once and return what they hold and what is wrong.

    `page`: which page of images that have several. `progress`: wraps what is gone through, to show how far.
    """
    faults = list(found.faults)
    images: dict[Path, _Picture] = {}
    masks: dict[Path, MaskLevels] = {}
    samples = found.samples
    for sample in progress(samples, "reading", len(samples)) if progress else samples:
        with _collect(sample.image, faults):
            images[sample.image] = _look_at(sample.image, page)
        for path in dict.fromkeys(path for paths in sample.masks.values() for path in paths):
            with _collect(path, faults):
                masks[path] = mask_levels(path)
    reading = decide_reading(masks.values(), found.values)
    faults += _size_faults(samples, images, masks)
    faults += _dark_images(images.values())
    readable = [(sample, images[sample.image]) for sample in samples if sample.image in images]
    duplicates = find_duplicates([Seen(one, image.digest, image.hash) for one, image in readable], progress)
    faults += map(_twice, duplicates)
    groups = _groups(samples)
    faults += _torn_groups(samples, groups)
    faults += _inexact_masks(masks.values())
    faults += _doubtful_values(masks.values(), reading)
    covered = {name: _coverage(samples, masks, reading, name) for name in found.classes}
    faults += _extreme_masks(samples, covered, {fault.path for fault in faults if fault.level == "error"})
    return Inspection(
        reading=reading,
        faults=tuple(faults),
        classes=found.classes,
        images=dict(Counter(sample.split for sample in samples)),
        sizes=_counts(f"{picture.width} x {picture.height}" for picture in images.values()),
        kinds=_counts(picture.kind for picture in images.values()),
        mask_kinds=_counts(mask.kind for mask in masks.values()),
        duplicates=duplicates,
        groups=groups,
        empty_masks={name: sum(share == 0 for share in covered[name].values()) for name in found.classes},
        foreground_share={
            name: float(np.mean(list(covered[name].values()))) if covered[name] else 0.0
            for name in found.classes
        },
        read_as=_read_as(masks.values(), reading),
    )


def require_sound(inspection: Inspection) -> None:
    """Raise a `DataError` with every error of the inspection, if it has any."""
    if inspection.errors:
        raise DataError(fault.message for fault in inspection.errors)


@dataclass(frozen=True)
class _Picture:
    """What is kept of a decoded image."""

    path: Path
    height: int
    width: int
    digest: bytes
    """Of the pixels, so that two files of the same picture are known."""
    hash: PictureHash | None
    """So that copies of a photograph are known, though their pixels differ."""
    kind: str
    """Colours and bits of the file."""
    top: int
    largest: int
    """The largest raw value."""


@contextlib.contextmanager
def _collect(path: Path, faults: list[Fault]) -> Iterator[None]:
    """Turn a `DataError` of the block into an error fault about `path`."""
    try:
        yield
    except DataError as error:
        faults.append(Fault("error", path, str(error)))


def _look_at(path: Path, page: int | None) -> _Picture:
    decoded = decode(path, page)
    pixels = to_rgb(decoded)
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height} {width} ".encode() + pixels.tobytes()).digest()
    largest = int(decoded.pixels.max())
    return _Picture(path, height, width, digest, picture_hash(pixels), decoded.kind, decoded.top, largest)


def _counts(words: Iterable[str]) -> dict[str, int]:
    """Return each word and how often it comes, the most frequent first."""
    return dict(Counter(words).most_common())


def _size_faults(
    samples: Iterable[Sample], images: dict[Path, _Picture], masks: dict[Path, MaskLevels]
) -> Iterator[Fault]:
    for sample in samples:
        image = images.get(sample.image)
        for path in dict.fromkeys(path for paths in sample.masks.values() for path in paths):
            mask = masks.get(path)
            if not image or not mask or (image.height, image.width) == (mask.height, mask.width):
                continue
            message = (
                f"{path} is {mask.width} x {mask.height} pixels, but its image {sample.image} is "
                f"{image.width} x {image.height}; they must be equal"
            )
            if (image.height, image.width) == (mask.width, mask.height):
                message += ". One is turned by 90 degrees: check the EXIF orientation of the image"
            yield Fault("error", path, message)


def _dark_images(images: Iterable[_Picture]) -> Iterator[Fault]:
    # A camera of 14 bits or less that did not scale its values leaves the two upper bits of 16 unused.
    dark = [image for image in images if image.top == 65535 and image.largest < 2**14]
    if dark:
        largest = max(image.largest for image in dark)
        message = (
            f"{_first_of(dark)}: the largest value is {largest} of 65535; scaled by the range of 16 bits it "
            "is dark. If the camera has fewer bits, stretch the values to 65535"
        )
        yield Fault("warning", dark[0].path, message)


def _twice(pair: Duplicate) -> Fault:
    one, other = pair.first, pair.second
    both = f"{one.image} and {other.image} are the same picture"
    if pair.bits is not None:
        alike = f"{pair.bits} of {BITS} bits of their hashes differ"
        both = f"{one.image} and {other.image} look like copies of one picture ({alike})"
    if pair.between_splits:
        message = f"{both}, in {one.split} and in {other.split}: scores would be too good; remove one"
        return Fault("warning", other.image, message)
    return Fault("note", other.image, f"{both}, twice in {other.split}")


def _groups(samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if sample.group is not None:
            counts[sample.group][sample.split] += 1
    return {group: dict(counts[group]) for group in sorted(counts)}


def _torn_groups(samples: Sequence[Sample], groups: dict[str, dict[str, int]]) -> Iterator[Fault]:
    """Report, once, the groups that lie in several splits, with an image of each split."""
    torn = [group for group, splits in groups.items() if len(splits) > 1]
    if not torn:
        return
    first: dict[tuple[str | None, str], Path] = {}
    for sample in samples:
        first.setdefault((sample.group, sample.split), sample.image)
    named = [
        f"{group} ({', '.join(str(first[group, split]) for split in groups[group])})"
        for group in torn[:_GROUPS_NAMED]
    ]
    more = f" and {len(torn) - len(named)} more" if len(torn) > len(named) else ""
    message = (
        f"{len(torn)} of {len(groups)} groups lie in several splits: {', '.join(named)}{more}; scores would "
        "be too good: move each into one split"
    )
    yield Fault("warning", first[torn[0], next(iter(groups[torn[0]]))], message)


def _inexact_masks(masks: Iterable[MaskLevels]) -> Iterator[Fault]:
    jpegs = [mask for mask in masks if mask.lossy]
    if jpegs:
        message = f"{_first_of(jpegs)}: a JPEG mask is inexact at its borders; save masks as PNG"
        yield Fault("warning", jpegs[0].path, message)


def _doubtful_values(masks: Iterable[MaskLevels], reading: MaskReading) -> Iterator[Fault]:
    """Report masks that the reading may have got wrong: nothing above half, or a third value."""
    clear = []
    for mask in masks:
        if _is_faint(mask, reading):
            yield _faint(mask)
        else:
            clear.append(mask)
    yield from _third_values(clear, reading)


def _is_faint(mask: MaskLevels, reading: MaskReading) -> bool:
    """Whether a binary mask that holds something would be read as empty."""
    if reading.values or mask.foreground_pixels(reading, ""):
        return False
    signal = {value for value in mask.counts if value and not (mask.lossy and value < JPEG_NOISE * mask.top)}
    return len(signal) == 1 or bool(signal & mask.areas)


def _faint(mask: MaskLevels) -> Fault:
    values = [value for value in mask.counts if len(mask.counts) == 2 or value == 0 or value in mask.areas]
    message = (
        f"{mask.path}: holds the {_kind(mask)} {_enumerate(values)}, none above half of the range, so "
        f"that it would be read as empty; say what they mean with --mask-values {_example(values)}"
    )
    return Fault("error", mask.path, message)


def _third_values(masks: list[MaskLevels], reading: MaskReading) -> Iterator[Fault]:
    """Report values of areas that are neither background, nor the foreground value, nor named."""
    areas = {mask.path: _areas(mask, reading) for mask in masks}
    odd: dict[tuple[int, ...], list[MaskLevels]] = defaultdict(list)
    levels = set()
    for mask in masks:
        expected = _expected(mask, reading)
        levels |= {1.0 if grey in expected else grey / mask.top for grey in areas[mask.path].values() if grey}
        values = tuple(value for value, grey in areas[mask.path].items() if grey not in expected)
        if values:
            odd[values].append(mask)
    if not reading.values and len(levels) < 2:  # one foreground value, whatever it is, is no third value
        return
    for values, holders in odd.items():
        mask, shown = holders[0], list(areas[holders[0].path])
        meanings = ", ".join(f"{value} as {_meaning(value, mask, reading)}" for value in shown)
        if reading.values:
            advice = f"--mask-values does not name {_enumerate(values)}"
        else:
            advice = f"if they are classes, name them with --mask-values {_example(shown)}"
        message = (
            f"{_first_of(holders)}: holds the {_kind(mask)} {_enumerate(shown)}; read {meanings}; {advice}"
        )
        yield Fault("warning", mask.path, message)


def _expected(mask: MaskLevels, reading: MaskReading) -> set[int]:
    """Return the grey values about which there is no doubt."""
    if reading.values:
        return {0, *reading.values.values()}
    if mask.luminance is not None and reading.palette == "index":
        return {0, 1}
    if mask.luminance is None and reading.foreground == "above-zero":
        return {0, 1, mask.top}
    return {0, mask.top}


def _areas(mask: MaskLevels, reading: MaskReading) -> dict[int, int]:
    """Return each value that fills areas and the grey value that counts for it, JPEG noise taken off."""
    values = sorted(mask.areas)
    greys, top = reading.grey(np.array(values, dtype=np.uint16), mask.top, mask.luminance)
    if not mask.lossy:
        return dict(zip(values, greys.tolist(), strict=True))
    expected = sorted(_expected(mask, reading) | {0, top})
    nearest = [min(expected, key=lambda anchor: abs(anchor - value)) for value in values]
    snapped = [
        anchor if abs(anchor - value) < JPEG_NOISE * top else value
        for anchor, value in zip(nearest, values, strict=True)
    ]
    return {value: value for value in sorted(set(snapped))}


def _meaning(value: int, mask: MaskLevels, reading: MaskReading) -> str:
    """Return the class that a raw value is read as."""
    for name in reading.values or ("foreground",):
        if reading.is_foreground(np.array([value], dtype=np.uint16), mask.top, mask.luminance, name)[0]:
            return name
    return "background"


def _read_as(masks: Iterable[MaskLevels], reading: MaskReading) -> dict[str, str]:
    meanings = {}
    for mask in masks:
        by_index = mask.luminance is not None
        for value in _areas(mask, reading):
            meanings[by_index, value] = _meaning(value, mask, reading)
    return {f"index {v}" if by_index else str(v): meanings[by_index, v] for by_index, v in sorted(meanings)}


def _coverage(
    samples: Iterable[Sample], masks: dict[Path, MaskLevels], reading: MaskReading, name: str
) -> dict[Path, float]:
    """Return, by image, the share of its area that belongs to a class, as the mean over raters."""
    covered = {}
    for sample in samples:
        levels = [masks[path] for path in sample.masks[name] if path in masks]
        if len(levels) == len(sample.masks[name]):
            shares = [mask.foreground_pixels(reading, name) / (mask.height * mask.width) for mask in levels]
            covered[sample.image] = float(np.mean(shares))
    return covered


def _extreme_masks(
    samples: Iterable[Sample], covered: dict[str, dict[Path, float]], faulty: set[Path]
) -> Iterator[Fault]:
    """Report masks without foreground, or with nothing else, that are not reported as errors."""
    for sample in samples:
        for name, shares in covered.items():
            paths = sample.masks[name]
            share = shares.get(sample.image)
            if share not in (0, 1) or faulty & set(paths):
                continue
            files = " and ".join(map(str, paths))
            if share == 0:
                message = f"{files}: no pixel is {name}; allowed, and counted in every score"
            else:
                message = f"{files}: every pixel is {name}; often this is an inverted or misread mask"
            yield Fault("warning", paths[0], message)


def _first_of(things: Sequence[_Picture] | Sequence[MaskLevels]) -> str:
    """Return the path of the first, and how many more there are: said once, as it concerns the whole set."""
    more = len(things) - 1
    return f"{things[0].path}" + (f" and {more} more" if more else "")


def _kind(mask: MaskLevels) -> str:
    return "values" if mask.luminance is None else "palette indexes"


def _enumerate(values: Sequence[int]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} and {last}" if others else last


def _example(values: Iterable[int]) -> str:
    return ",".join(f"name={value}" for value in values if value)
