"""Prompts made from masks: clicks, boxes or nothing, in (x, y) pixels of the original image.

A coordinate is the index of a pixel; the backbone adds the half pixel to its centre. The number of slots
depends on the kind and its options only, so that prompts of different images make one batch.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from samfit.errors import SettingError, unknown_name
from samfit.settings import PROMPTS
from samfit.types import BOTTOM_RIGHT, NEGATIVE, NOTHING, POSITIVE, TOP_LEFT

Points = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Points (P, 2) as (x, y), and their labels (P,)."""


def prompt_seed(seed: int, sample_id: str, epoch: int | None) -> int:
    """Return a seed of 64 bits that is the same in every process. `epoch` is None in evaluation."""
    key = f"{seed}/{epoch}/{sample_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def has_box(kind: str) -> bool:
    """Return whether the last two slots of this kind of prompt are the corners of a box."""
    return kind in ("box", "full-box")


def make_prompt(
    kind: str,
    mask: NDArray[np.float32] | None,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    clicks: int = 1,
    negative_clicks: int = 0,
    box_jitter: int = 0,
) -> Points:
    """Make the prompt of one image of `height` x `width` pixels.

    `mask`: what is asked for (H, W), 0…1, foreground from 0.5 on; may be None where the kind needs none.

    - `click`: random foreground pixels, then random background pixels. Where there are fewer than asked for,
      they are repeated; where there is no background, its slots hold nothing.
    - `box`: the smallest and the largest foreground pixel of both axes, each side moved by a whole number of
      pixels in ±`box_jitter`, never out of the image.
    - `full-box`: (0, 0) and (width, height), as CAD has it.
    - `none`: no slots.

    A mask without foreground gives a click or box whose slots all hold nothing. Raises `SettingError` for an
    unknown kind and for a click or box without a mask.
    """
    if kind not in PROMPTS:
        raise SettingError(f"--prompt: {unknown_name('prompt', kind, PROMPTS)}")
    if kind == "none":
        return _points([], [])
    if kind == "full-box":
        return _points([(0, 0), (width, height)], [TOP_LEFT, BOTTOM_RIGHT])
    if mask is None:
        raise SettingError(
            f"--prompt {kind} is taken from a mask, and there is none: give clicks or boxes with "
            "--prompts FILE, or use --prompt full-box"
        )
    foreground = mask >= 0.5
    if kind == "click":
        return _clicks(foreground, rng, clicks, negative_clicks)
    return _box(foreground, rng, box_jitter)


def _clicks(foreground: NDArray[np.bool_], rng: np.random.Generator, positive: int, negative: int) -> Points:
    slots = positive + negative
    if not foreground.any():
        return _points([(0, 0)] * slots, [NOTHING] * slots)
    points = _draw(foreground, rng, positive)
    labels = [POSITIVE] * positive
    if foreground.all():
        return _points(points + [(0, 0)] * negative, labels + [NOTHING] * negative)
    return _points(points + _draw(~foreground, rng, negative), labels + [NEGATIVE] * negative)


def _draw(area: NDArray[np.bool_], rng: np.random.Generator, number: int) -> list[tuple[int, int]]:
    """Draw `number` pixels of an area that is not empty, different ones as far as it has them."""
    pixels = np.flatnonzero(area)
    drawn = rng.choice(pixels, min(number, pixels.size), replace=False)
    rows, columns = np.unravel_index(np.resize(drawn, number), area.shape)
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def _box(foreground: NDArray[np.bool_], rng: np.random.Generator, jitter: int) -> Points:
    if not foreground.any():
        return _points([(0, 0), (0, 0)], [NOTHING, NOTHING])
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]])
    moved = corners + rng.integers(-jitter, jitter, corners.shape, endpoint=True)
    height, width = foreground.shape
    inside = moved.clip(0, [width - 1, height - 1])
    # Sides of a small box may have passed each other.
    return _points(np.sort(inside, axis=0).tolist(), [TOP_LEFT, BOTTOM_RIGHT])


def _points(points: list[tuple[int, int]], labels: list[int]) -> Points:
    return np.array(points, dtype=np.float32).reshape(-1, 2), np.array(labels, dtype=np.int64)
