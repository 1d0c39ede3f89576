"""Pictures of masks on their images, sheets of such pictures, and PNG files.

The colours are of the palette of Okabe and Ito, which people with any kind of colour vision tell apart.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from samfit.files import atomic_path

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

PREDICTION_COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
    (230, 159, 0),
)
"""Sky blue, bluish green, reddish purple, vermilion, blue and orange, one a class in turn."""
TRUTH_COLOUR: Colour = (240, 228, 66)
"""Yellow, for the truth of every class."""
ERROR_COLOURS: tuple[tuple[str, Colour], ...] = (
    ("right", (0, 158, 115)),
    ("too much", (213, 94, 0)),
    ("missed", (86, 180, 233)),
)
"""What the colours of `draw_errors` mean: bluish green, vermilion and sky blue."""
ERROR_TINT = 0.6
"""How much of the colour covers an area of `draw_errors`."""
TINT = 0.25
"""How much of the colour covers the predicted area."""
RIM = 0.6
"""How much the rim of a line darkens what is under it."""

THUMBNAIL = 240
"""Longest side, in pixels, of a picture on a sheet."""

_GAP = 10
_MARGIN = 16
_TEXT_SIZE = 14
_LINE = 20
_INK: Colour = (30, 30, 30)
_PAPER: Colour = (255, 255, 255)


def draw_overlay(image: Picture, mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None = None) -> Picture:
    """Draw masks on a copy of an image (H, W, 3).

    `mask`: the prediction, (H, W) or one a class (C, H, W), as a tinted area with an outline. `truth`: of the
    same shape, as an outline in yellow. Lines have a dark rim, so that they show on any image.
    """
    masks, picture = _each(mask), image.copy()
    for number, area in enumerate(masks):
        colour = np.array(prediction_colour(number), dtype=np.float32)
        picture[area] = np.rint((1 - TINT) * picture[area] + TINT * colour).astype(np.uint8)
    lines = [(area, TRUTH_COLOUR) for area in _each(truth)] if truth is not None else []
    lines += [(area, prediction_colour(number)) for number, area in enumerate(masks)]
    _outline(picture, lines, width=max(1, round(max(image.shape[:2]) / 250)))
    return picture


def draw_errors(image: Picture, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Picture:
    """Colour what a prediction has right, has too much and has missed, on a grey copy of an image (H, W, 3).

    `mask` and `truth`: (H, W), or one a class (C, H, W); of several classes any error of a pixel counts.
    """
    masks, truths = _each(mask), _each(truth)
    missed, wrong = (truths & ~masks).any(axis=0), (masks & ~truths).any(axis=0)
    right = (masks & truths).any(axis=0) & ~missed & ~wrong
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    picture = np.repeat(grey, 3, axis=2)
    for area, (_, colour) in zip((right, wrong & ~missed, missed), ERROR_COLOURS, strict=True):
        picture[area] = (1 - ERROR_TINT) * picture[area] + ERROR_TINT * np.array(colour, dtype=np.float32)
    return np.rint(picture).astype(np.uint8)


def prediction_colour(number: int) -> Colour:
    """Return the colour of the class with this number, counted from 0."""
    return PREDICTION_COLOURS[number % len(PREDICTION_COLOURS)]


def legend(classes: Sequence[str]) -> list[tuple[str, Colour]]:
    """Return what the colours of `draw_overlay` mean, for the legend of a sheet."""
    if len(classes) == 1:
        return [("prediction", prediction_colour(0)), ("truth", TRUTH_COLOUR)]
    named = [(f"prediction: {name}", prediction_colour(number)) for number, name in enumerate(classes)]
    return [*named, ("truth", TRUTH_COLOUR)]


def with_caption(picture: Picture, lines: Sequence[str]) -> Picture:
    """Return a picture (H, W, 3) with lines of text on white paper below it, wider where a line needs it."""
    font = ImageFont.load_default(_TEXT_SIZE)
    height, width = picture.shape[:2]
    needed = max((math.ceil(font.getlength(line)) for line in lines), default=0)
    sheet = Image.new("RGB", (max(width, needed + _GAP), height + _LINE * len(lines)), _PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((_GAP // 2, height + _LINE * number), line, fill=_INK, font=font)
    return np.asarray(sheet)


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    captions: Sequence[str],
    headers: Sequence[str],
    legend: Sequence[tuple[str, Colour]] = (),
) -> Picture:
    """Lay pictures out on white paper: small copies in rows and columns, at their own aspect.

    `rows`: pictures (H, W, 3) or grey (H, W). `captions`: one a row, above it. `headers`: one a column, above
    all. `legend`: names and colours, at the top. Returns the sheet (H, W, 3).
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    small = [[_thumbnail(picture) for picture in row] for row in rows]
    columns = max(len(headers), *(len(row) for row in small)) if small else len(headers)
    widths = [
        max((row[column].width for row in small if column < len(row)), default=0) for column in range(columns)
    ]
    for column, header in enumerate(headers):
        widths[column] = max(widths[column], round(font.getlength(header)))
    heights = [max((picture.height for picture in row), default=0) for row in small]
    texts = [round(font.getlength(caption)) for caption in captions]
    legend_width = sum(_LINE + round(font.getlength(name)) + 2 * _GAP for name, _ in legend)
    width = max(sum(widths) + _GAP * (columns - 1), legend_width, *texts, 1) + 2 * _MARGIN
    above = _MARGIN + (_LINE + _GAP if legend else 0) + (_LINE + _GAP // 2 if headers else 0)
    height = above + sum(_LINE + tall + _GAP for tall in heights) - _GAP + _MARGIN

    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = _MARGIN
    if legend:
        left = _MARGIN
        for name, colour in legend:
            pen.rectangle((left, top + 2, left + 13, top + 15), fill=colour, outline=_INK)
            pen.text((left + _LINE, top), name, fill=_INK, font=font)
            left += _LINE + round(font.getlength(name)) + 2 * _GAP
    lefts = [_MARGIN + sum(widths[:column]) + _GAP * column for column in range(columns)]
    for left, header in zip(lefts, headers, strict=False):
        pen.text((left, above - _LINE - _GAP // 2), header, fill=_INK, font=font)
    top = above
    for row, caption, tall in zip(small, captions, heights, strict=True):
        pen.text((_MARGIN, top), caption, fill=_INK, font=font)
        for left, picture in zip(lefts, row, strict=False):
            sheet.paste(picture, (left, top + _LINE))
        top += _LINE + tall + _GAP
    return np.asarray(sheet)


def write_png(path: Path, array: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.bool_]) -> None:
    """Write a PNG in one step: colour (H, W, 3) uint8, grey (H, W) uint8 or uint16, or a mask (H, W) bool.

    A mask becomes 0 and 255. Raises `StorageError` if the file cannot be written.
    """
    pixels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _each(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask[None] if mask.ndim == 2 else mask


def _outline(picture: Picture, lines: Sequence[tuple[NDArray[np.bool_], Colour]], width: int) -> None:
    """Draw the outlines of areas into `picture`, all rims first, so that no rim hides another line."""
    contours = [
        (cv2.findContours(area.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0], colour)
        for area, colour in lines
    ]
    rim = np.zeros(picture.shape[:2], dtype=np.uint8)
    for contour, _ in contours:
        cv2.drawContours(rim, contour, -1, (255,), width + 2)
    light = 1 - RIM * rim[..., None].astype(np.float32) / 255
    picture[:] = np.rint(picture * light).astype(np.uint8)
    for contour, colour in contours:
        cv2.drawContours(picture, contour, -1, colour, width)


def _thumbnail(picture: Picture) -> Image.Image:
    small = Image.fromarray(picture).convert("RGB")
    scale = THUMBNAIL / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
