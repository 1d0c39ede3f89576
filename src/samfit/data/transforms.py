"""Augmentation: one random matrix that moves image, masks and points together.

Coordinates are pixel indices: pixel i has its centre at i. A matrix (2, 3) maps (x, y, 1) of the old image to
(x, y) of the new one. What comes in from outside the old image is its reflection, in image and masks alike.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from samfit.settings import Augmentation

Matrix = NDArray[np.float64]
AnyT = TypeVar("AnyT", bound=np.generic)

LARGEST_SHIFT = 0.06
"""Share of the image's width or height."""
SMALLEST_SCALE, LARGEST_SCALE = 0.9, 1.1
LARGEST_ANGLE = 15.0
"""Degrees."""


@dataclass(frozen=True, order=True)
class View:
    """One of the eight ways in which flips and quarter turns show an image."""

    mirror: bool
    """Whether left and right are exchanged first."""
    turns: int
    """Quarter turns against the clock after that, 0…3."""

    def matrix(self, height: int, width: int) -> tuple[Matrix, int, int]:
        """Return how an image of `height` x `width` is moved, the new height and the new width."""
        matrix = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]] if self.mirror else np.eye(2, 3))
        for _ in range(self.turns):
            # (x, y) goes to (y, width - 1 - x).
            matrix = np.array([matrix[1], [0, 0, width - 1] - matrix[0]])
            height, width = width, height
        return matrix, height, width


UNMOVED = View(mirror=False, turns=0)
"""The image as it is."""


def draw_view(rng: np.random.Generator) -> View:
    """Draw one of the eight views."""
    return View(mirror=bool(rng.integers(2)), turns=int(rng.integers(4)))


def draw_matrix(
    kind: Augmentation, height: int, width: int, rng: np.random.Generator
) -> tuple[Matrix, int, int]:
    """Draw how an image of `height` x `width` is moved; return the matrix, the new height and the new width.

    `none`: not at all. `flips`: one of the eight flips and quarter turns, which may swap height and width.
    `affine`: after that also turned, scaled and shifted, at the same size.
    """
    if kind == "none":
        return UNMOVED.matrix(height, width)
    flipped, height, width = draw_view(rng).matrix(height, width)
    if kind == "flips":
        return flipped, height, width
    return _shift_scale_turn(height, width, rng) @ np.vstack([flipped, [0, 0, 1]]), height, width


def warp_image(image: NDArray[np.uint8], matrix: Matrix, height: int, width: int) -> NDArray[np.uint8]:
    """Move an image (H, W, 3) to (height, width, 3); exact for flips and quarter turns, else bilinear."""
    if _is_flip(matrix, height, width):
        return _flip(image, matrix)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, dtype=np.uint8)


def warp_masks(masks: NDArray[np.float32], matrix: Matrix, height: int, width: int) -> NDArray[np.float32]:
    """Move masks (C, H, W), 0…1, to (C, height, width) like the image; edges of hard masks become soft."""
    if _is_flip(matrix, height, width):
        return np.stack([_flip(mask, matrix) for mask in masks])
    moved = [
        cv2.warpAffine(
            mask, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        for mask in masks
    ]
    return np.stack(moved).astype(np.float32, copy=False)


def _is_flip(matrix: Matrix, height: int, width: int) -> bool:
    """Whether a matrix only flips and makes quarter turns, onto an image of `height` x `width`."""
    signs = matrix[:, :2].sum(axis=1)
    corner = np.where(signs < 0, (width - 1, height - 1), 0)
    return bool(np.isin(matrix[:, :2], (-1.0, 0.0, 1.0)).all() and (matrix[:, 2] == corner).all())


def _flip(array: NDArray[AnyT], matrix: Matrix) -> NDArray[AnyT]:
    """Flip and turn the first two axes (H, W) of an array as the matrix says, without touching a value."""
    moved = array if matrix[0, 0] else array.swapaxes(0, 1)
    columns, rows = (int(sign) for sign in matrix[:, :2].sum(axis=1))
    return np.ascontiguousarray(moved[::rows, ::columns])


def _shift_scale_turn(height: int, width: int, rng: np.random.Generator) -> Matrix:
    """Draw a rotation and scaling about the centre of the image, followed by a shift."""
    angle = math.radians(rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE))
    scale = rng.uniform(SMALLEST_SCALE, LARGEST_SCALE)
    linear = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = np.array([width - 1, height - 1]) / 2
    shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * [width, height]
    return np.column_stack([linear, centre - linear @ centre + shift])
