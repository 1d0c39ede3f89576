"""What the values of masks are read as, and where that may be wrong."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from samfit.data.reading import MaskLevels, MaskReading
from samfit.data.sources.row import Fault

JPEG_NOISE = 1 / 8
"""Values of a JPEG mask within this share of the range from an expected value are taken for noise."""


class HasPath(Protocol):
    """What was seen of a file."""

    @property
    def path(self) -> Path:
        """Where the file is."""
        ...


def inexact_masks(masks: Iterable[MaskLevels]) -> Iterator[Fault]:
    """Report, once, masks that are JPEG files."""
    jpegs = [mask for mask in masks if mask.lossy]
    if jpegs:
        message = f"{first_of(jpegs)}: a JPEG mask is inexact at its borders; save masks as PNG"
        yield Fault("warning", jpegs[0].path, message)


def doubtful_values(masks: Iterable[MaskLevels], reading: MaskReading) -> Iterator[Fault]:
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
            f"{first_of(holders)}: holds the {_kind(mask)} {_enumerate(shown)}; read {meanings}; {advice}"
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


def meanings_of(masks: Iterable[MaskLevels], reading: MaskReading) -> dict[str, str]:
    """Return each frequent value (`128`; of a palette `index 1`) and the class that it is read as."""
    meanings = {}
    for mask in masks:
        by_index = mask.luminance is not None
        for value in _areas(mask, reading):
            meanings[by_index, value] = _meaning(value, mask, reading)
    return {f"index {v}" if by_index else str(v): meanings[by_index, v] for by_index, v in sorted(meanings)}


def first_of(things: Sequence[HasPath]) -> str:
    """Return the path of the first, and how many more there are: said once, as it concerns the whole set."""
    more = len(things) - 1
    return f"{things[0].path}" + (f" and {more} more" if more else "")


def _kind(mask: MaskLevels) -> str:
    return "values" if mask.luminance is None else "palette indexes"


def _enumerate(values: Sequence[int]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} and {last}" if others else last


def _example(values: Iterable[int]) -> str:
    """Return how classes are named by their values: `--mask-values` takes it as it stands."""
    return ",".join(f"class{number}={value}" for number, value in enumerate(filter(None, values), 1))
