"""A contact sheet of a data set: images of each split with their masks drawn as they are read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samfit.data.inspect import Inspection
from samfit.data.reading import read_image, read_masks
from samfit.data.sources.row import Found
from samfit.errors import DataError
from samfit.report.overlays import THUMBNAIL, Picture, contact_sheet, draw_overlay, prediction_colour
from samfit.types import Sample

ROWS, COLUMNS = 3, 5
"""Of pictures a split."""

_LINE = 20
_PICTURE = THUMBNAIL - 2 * _LINE
"""Longest side of a picture in its square; two lines of text stand below it."""
_TEXT_SIZE = 13
_LETTERS = 32
"""How many fit below a picture."""
_INK = {"": (90, 90, 90), "warning": (170, 90, 0), "error": (190, 0, 0)}
"""Colour of the second line, by the worst fault."""


def data_sheet(found: Found, inspection: Inspection, page: int | None = None) -> Picture:
    """Return pictures of each split with their masks tinted and outlined, by class, as (H, W, 3).

    Up to 15 images a split: first those with an error or a warning, then others from the first to the last.
    Below each stand its name, its worst fault and the share of the area that each class has.
    """
    worst = _worst_faults(found, inspection)
    rows: list[list[Picture]] = []
    captions: list[str] = []
    for split in dict.fromkeys(sample.split for sample in found.samples):
        samples = [sample for sample in found.samples if sample.split == split]
        chosen = _choose(samples, worst)
        tiles = [_tile(sample, found.classes, inspection, worst[sample.image], page) for sample in chosen]
        lines = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
        rows += lines
        captions += [f"{split}: {len(chosen)} of {len(samples)} images", *[""] * (len(lines) - 1)]
    legend = [(name, prediction_colour(number)) for number, name in enumerate(found.classes)]
    return contact_sheet(rows, captions, headers=[], legend=legend)


def _worst_faults(found: Found, inspection: Inspection) -> dict[Path, str]:
    """Return, by image, the worst level of the faults about its files: `error`, `warning` or nothing."""
    levels: dict[Path, set[str]] = defaultdict(set)
    for fault in inspection.faults:
        levels[fault.path].add(fault.level)
    worst = {}
    for sample in found.samples:
        files = [sample.image, *(path for paths in sample.masks.values() for path in paths)]
        met = set().union(*(levels.get(path, set()) for path in files))
        worst[sample.image] = next((level for level in ("error", "warning") if level in met), "")
    return worst


def _choose(samples: Sequence[Sample], worst: Mapping[Path, str]) -> list[Sample]:
    """Return those with a fault, and others at equal distances, as many as there is room for."""
    room = ROWS * COLUMNS
    faulty = [sample for sample in samples if worst[sample.image]][:room]
    others = [sample for sample in samples if not worst[sample.image]]
    count = min(room - len(faulty), len(others))
    places = np.linspace(0, len(others) - 1, count).round().astype(int)
    return faulty + [others[place] for place in places]


def _tile(
    sample: Sample, classes: Sequence[str], inspection: Inspection, level: str, page: int | None
) -> Picture:
    """Return a square with the small picture and two lines of text."""
    sheet = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    said = [level] if level else []
    try:
        picture = _small(read_image(sample.image, page))
    except DataError:
        picture = None
    if picture is not None:
        try:
            masks = read_masks(sample, inspection.reading, classes)
        except DataError:
            masks = None
        if masks is not None:
            said += [f"{name} {mask.mean():.1%}" for name, mask in zip(classes, masks, strict=True)]
            size = picture.shape[1::-1]
            areas = [cv2.resize(mask, size, interpolation=cv2.INTER_AREA) >= 0.5 for mask in masks]
            picture = draw_overlay(picture, np.stack(areas))
        place = (THUMBNAIL - picture.shape[1]) // 2, (_PICTURE - picture.shape[0]) // 2
        sheet.paste(Image.fromarray(picture), place)
    font, pen = ImageFont.load_default(_TEXT_SIZE), ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(((sample.id, "black"), (", ".join(said), _INK[level]))):
        shown = text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
        pen.text((THUMBNAIL // 2, _PICTURE + _LINE * number), shown, fill=colour, font=font, anchor="ma")
    return np.asarray(sheet)


def _small(image: Picture) -> Picture:
    """Return an image (H, W, 3) with its longer side at that of a picture, and no side shorter than 1."""
    scale = _PICTURE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=kind).astype(np.uint8)
