"""Shapes: closed outlines, and lines that wander."""

from collections.abc import Iterator

import numpy as np
from canvas import SIDE, Canvas, Field, Outline, Point, Stroke

_PIECE = 5.0
"""Pixels between two bends of a line."""


def any_outline(rng: np.random.Generator) -> Outline:
    """Return an outline: an ellipse, a wavy one, a polygon, a star, a rectangle, a bean or a rod."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    kind = rng.integers(7)
    if kind == 0:
        return turned(rng, polar(angle, np.ones_like(angle)), 1.8)
    if kind == 1:
        return turned(rng, wavy(rng, 0.25), 1.4)
    if kind == 2:
        corners = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        return turned(rng, polar(corners, rng.uniform(0.6, 1.1, corners.size)), 1.3)
    if kind == 3:
        points = 2 * int(rng.integers(4, 9))
        corners = np.linspace(0, 2 * np.pi, points, endpoint=False)
        return turned(rng, polar(corners, np.tile([1.2, rng.uniform(0.4, 0.8)], points // 2)), 1.2)
    if kind == 4:
        return turned(rng, np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * 0.9, 2.5)
    long = polar(angle, np.ones_like(angle)) * ([1.2, 0.6] if kind == 5 else [1.6, 0.25])
    long[:, 1] += rng.uniform(-0.7, 0.7) * (long[:, 0] ** 2 - 0.5)
    return turned(rng, long, 1.0)


def wavy(rng: np.random.Generator, waviness: float) -> Outline:
    """Return a circle that swells and shrinks; `waviness`: deviation of its largest wave, twice over."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    distance = np.ones_like(angle)
    for waves in range(2, 9):
        distance += rng.normal(0, waviness / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return polar(angle, distance.clip(0.2, 2))


def polar(angle: Field, distance: Field) -> Outline:
    """Return the corners (N, 2) at these angles and distances (N,)."""
    return np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)


def turned(rng: np.random.Generator, outline: Outline, stretch: float) -> Outline:
    """Return an outline stretched up to this factor, the area kept, and turned."""
    factor = np.sqrt(rng.uniform(1, stretch))
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return (outline * [factor, 1 / factor]) @ rotation


def walk(
    rng: np.random.Generator, start: Point, heading: float, length: float, width: float, bend: float
) -> Iterator[Stroke]:
    """Yield the pieces of a line that wanders, branches and thins out.

    `heading` is in radians, changed by about `bend` with every piece.
    """
    branches = [(start, heading, length, width)]
    thinnest = min(1.0, width)
    while branches:
        place, heading, length, width = branches.pop()
        while length > 0:
            heading += rng.normal(0, bend)
            after = place + _PIECE * np.array([np.cos(heading), np.sin(heading)])
            yield place, after, width
            place, length = after, length - _PIECE
            width = max(thinnest, width * rng.uniform(0.9, 1.08))
            if rng.random() < 0.075:
                branches.append((place, heading + rng.choice([-0.8, 0.8]), 0.6 * length, 0.8 * width))


def lines(canvas: Canvas, number: int, width: tuple[float, float], bend: float) -> Field:
    """Return `number` wandering lines across the picture as how much of each pixel they cover."""
    cover = np.zeros_like(canvas.x)
    for _ in range(number):
        length, heading = canvas.rng.uniform(0.3, 1.6) * SIDE, canvas.rng.uniform(0, 2 * np.pi)
        line = walk(canvas.rng, canvas.place(), heading, length, canvas.rng.uniform(*width), bend)
        cover = np.maximum(cover, canvas.strokes(line))
    return cover
