"""The look at a whole data set: `samfit doctor`, and what every training does before its first step.

Every image and every mask is decoded once; what is wrong with single files is collected, not raised.
"""

import contextlib
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samfit.data.decoding import decode
from samfit.data.duplicates import BITS, Duplicate, PictureHash, Progress, Seen, find_duplicates, picture_hash
from samfit.data.mask_values import doubtful_values, first_of, inexact_masks, meanings_of
from samfit.data.reading import MaskLevels, MaskReading, decide_reading, mask_levels, to_rgb
from samfit.data.sources.row import Fault, Found
from samfit.errors import DataError
from samfit.types import Sample

logger = logging.getLogger(__name__)

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
        """Return everything as plain types, for `doctor --json`."""
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
    faults += inexact_masks(masks.values())
    faults += doubtful_values(masks.values(), reading)
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
        read_as=meanings_of(masks.values(), reading),
    )


def require_sound(inspection: Inspection) -> None:
    """Raise a `DataError` with every error of the inspection, if it has any."""
    if inspection.errors:
        raise DataError(fault.message for fault in inspection.errors)


def say_doubts(inspection: Inspection) -> None:
    """Log what is doubtful in a set that is sound: warnings as such, notes as information."""
    for fault in inspection.faults:
        logger.log(logging.INFO if fault.level == "note" else logging.WARNING, "%s", fault.message)


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
            f"{first_of(dark)}: the largest value is {largest} of 65535; scaled by the range of 16 bits it "
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
