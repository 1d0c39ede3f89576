"""Scores of masks: counts per image, then functions of counts, then an interval over images. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def dice(counts: Counts) -> Score:
    """Return 2·TP / (2·TP + FP + FN), in 0…1: 1 if both masks are empty, 0 if only one is."""
    twice = 2 * counts.true_positive
    return _ratio(twice, twice + counts.false_positive + counts.false_negative)


def iou(counts: Counts) -> Score:
    """Return TP / (TP + FP + FN), in 0…1: 1 if both masks are empty, 0 if only one is."""
    overlap = counts.true_positive
    return _ratio(overlap, overlap + counts.false_positive + counts.false_negative)


def _ratio(part: Count, whole: Count) -> Score:
    parts, wholes = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    ratio = np.divide(parts, wholes, out=np.ones_like(wholes), where=wholes > 0)
    return ratio if ratio.ndim else float(ratio)


@dataclass(frozen=True)
class Interval:
    """A mean over images and the interval in which it would lie on other images of the same kind."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean of `values`, one an image, with its percentile bootstrap interval over images.

    `samples`: how many times the images are drawn again, with replacement. `level`: share of the drawn means
    inside the interval. One image gives low = high = mean. Raises `ValueError` if there is none.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise ValueError("there are no values, so they have no mean")
    rng = np.random.default_rng(seed)
    means = [rng.choice(scores, scores.size).mean() for _ in range(samples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(scores.mean()), float(low), float(high))
