"""Dice and IoU as CAD's published code smooths them. For comparison with its numbers only.

The smoothing makes an empty target score almost 0 or 1 by accident; `samfit.metrics` states what ours do.
Paper: arXiv 2409.15889.
"""

import numpy as np
from numpy.typing import NDArray

SMOOTH = 1e-3


def cad_dice(prediction: NDArray, truth: NDArray) -> float:
    """Return the mean smoothed Dice of images (B, H, W); values 0…1, or bool for the thresholded score."""
    overlap, total = _sums(prediction, truth)
    return float(np.mean((2 * overlap + SMOOTH) / (total + SMOOTH)))


def cad_iou(prediction: NDArray, truth: NDArray) -> float:
    """Return the mean smoothed IoU of images (B, H, W); values 0…1, or bool for the thresholded score."""
    overlap, total = _sums(prediction, truth)
    return float(np.mean((overlap + SMOOTH) / (total - overlap + SMOOTH)))


def _sums(prediction: NDArray, truth: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    prediction, truth = prediction.astype(np.float64), truth.astype(np.float64)
    axes = (-2, -1)
    return (prediction * truth).sum(axes), prediction.sum(axes) + truth.sum(axes)
