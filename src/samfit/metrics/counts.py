"""Scores of two masks that are functions of counted pixels. No torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Count = int | NDArray[np.int64]
Score = float | NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Pixels of one mask, or arrays of such counts, for example one entry a class."""

    true_positive: Count
    false_positive: Count
    false_negative: Count
    true_negative: Count


def count(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Compare two masks (..., H, W) pixel by pixel; the counts have the shape of what stands before H and W.

    Raises `ValueError` if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, truth has {truth.shape}")

    def pixels(mask: NDArray[np.bool_]) -> Count:
        counted = np.count_nonzero(mask, axis=(-2, -1))
        return counted if mask.ndim > 2 else int(counted)

    return Counts(
        true_positive=pixels(prediction & truth),
        false_positive=pixels(prediction & ~truth),
        false_negative=pixels(~prediction & truth),
        true_negative=pixels(~prediction & ~truth),
    )


def dice(counts: Counts, smooth: float = 0.0) -> Score:
    """Return (2·TP + s) / (2·TP + FP + FN + s), in 0…1.

    Without smoothing, s = 0, it is 1 if both masks are empty and 0 if only one is.
    """
    twice = 2 * counts.true_positive
    return _ratio(twice + smooth, twice + counts.false_positive + counts.false_negative + smooth)


def iou(counts: Counts, smooth: float = 0.0) -> Score:
    """Return (TP + s) / (TP + FP + FN + s), in 0…1.

    Without smoothing, s = 0, it is 1 if both masks are empty and 0 if only one is.
    """
    overlap = counts.true_positive
    return _ratio(overlap + smooth, overlap + counts.false_positive + counts.false_negative + smooth)


def ber(counts: Counts) -> Score:
    """Return the balanced error rate (FN / (TP + FN) + FP / (FP + TN)) / 2, in 0…1: the smaller the better.

    Where the truth has no foreground, or nothing else, it is the error rate of the one kind of pixels that
    there is.
    """
    foreground = counts.true_positive + counts.false_negative
    background = counts.true_negative + counts.false_positive
    missed = 1 - np.asarray(_ratio(counts.true_positive, foreground))
    mistaken = 1 - np.asarray(_ratio(counts.true_negative, background))
    return _ratio(missed + mistaken, np.minimum(foreground, 1) + np.minimum(background, 1))


def _ratio(part: ArrayLike, whole: ArrayLike) -> Score:
    """Return part / whole, and 1 where both are 0."""
    parts, wholes = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    ratio = np.divide(parts, wholes, out=np.ones_like(wholes), where=wholes > 0)
    return ratio if ratio.ndim else float(ratio)
