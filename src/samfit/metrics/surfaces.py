"""Scores of the borders of two masks, computed by MONAI, which is imported when a score is taken.

All take one image: `prediction` and `truth` (H, W) bool. The border of a mask is made of its own outermost
pixels; the edge of the image bounds it too. `pip install '.[metrics]'`.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Ruler:
    """How borders are measured."""

    spacing: tuple[float, float] = (1.0, 1.0)
    """Distance of two neighbouring rows, and of two neighbouring columns; the unit of everything else."""
    tolerance: float = 1.0
    """Distance that surface Dice forgives."""


def hd95(prediction: Mask, truth: Mask, ruler: Ruler) -> float:
    """Return the 95 % Hausdorff distance in the unit of the ruler's spacing.

    From each border, the distance to the other that 95 % of its pixels do not exceed; the larger of the two.
    0 if both masks are empty. If only one is there is no distance: the diagonal of the image stands for it,
    which no distance in it exceeds, so that an empty answer does not improve a mean.
    """
    if not prediction.any() and not truth.any():
        return 0.0
    if not prediction.any() or not truth.any():
        return math.hypot(*(side * step for side, step in zip(truth.shape, ruler.spacing, strict=True)))
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    one, other = _batch(prediction), _batch(truth)
    with _own_warnings_off():
        distance = compute_hausdorff_distance(
            one, other, include_background=True, percentile=95, spacing=list(ruler.spacing)
        )
    return float(distance)


def surface_dice(prediction: Mask, truth: Mask, ruler: Ruler) -> float:
    """Return the share of the pixels of both borders that lie within the tolerance of the other border, 0…1.

    1 if both masks are empty, 0 if only one is. Paper: arXiv 1809.04430.
    """
    if not prediction.any() and not truth.any():
        return 1.0
    if not prediction.any() or not truth.any():
        return 0.0
    from monai.metrics.surface_dice import compute_surface_dice

    one, other = _batch(prediction), _batch(truth)
    with _own_warnings_off():
        share = compute_surface_dice(
            one,
            other,
            class_thresholds=[ruler.tolerance],
            include_background=True,
            spacing=list(ruler.spacing),
        )
    return float(share)


@contextmanager
def _own_warnings_off() -> Iterator[None]:
    """Pass over what MONAI 1.6 says of an argument that it hands to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _batch(mask: Mask) -> Any:
    """Return a tensor (1, 1, H, W), as MONAI takes masks."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]
