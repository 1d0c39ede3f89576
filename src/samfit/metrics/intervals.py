"""How far a mean can be trusted: bootstrap intervals, paired differences and spreads over seeds. No torch.

Everything is a function of its arguments: random draws come from a seed. Intervals are of the kind BCa
(Efron, JASA 1987: bias-corrected and accelerated), which unlike the plain percentiles take the skewness of
scores into account, most of which lie near 1.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[np.float64]

FEWEST = 6
"""Images, or groups of them, below which there is no interval: even if all of n differences point one way,
chance does as much in 2^(1 - n) of all cases, which is no more than 0.05 from six on."""

_NORMAL = NormalDist()
_DRAWN_AT_ONCE = 2**22
"""Numbers drawn at once: 32 MB."""
_ROUNDING = 1e-12
"""What floating-point numbers near 1 differ by without meaning anything."""


@dataclass(frozen=True)
class Interval:
    """A mean over images, and the interval in which it would lie on other images of the same kind."""

    mean: float
    low: float | None
    """None, as `high`, if there are fewer than `FEWEST` images or groups: they say too little of others."""
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of first minus second over the same images, and what it shows."""

    mean: float
    low: float | None
    high: float | None
    verdict: Literal["better", "worse", "tie"]
    """What the first is beside the second; `tie` where the interval reaches 0, or there is none."""


@dataclass(frozen=True)
class Spread:
    """A result over several trainings that differ in their seed alone."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds (divisor: seeds - 1), or None of one seed."""
    seeds: int


def bootstrap_interval(
    values: Values,
    *,
    groups: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean of `values`, one an image, with its BCa bootstrap interval over images.

    `groups`: what each image belongs to, a patient say. Images of one group are alike, so whole groups are
    drawn; the mean stays that over images. `samples`: how many times as many are drawn as there are, with
    replacement. `level`: share of such intervals that hold the mean of all images of the kind, somewhat fewer
    where there are less than about 20 images or groups. Below `FEWEST` of them there is no interval.

    Raises `ValueError` if there are no values, or not one group for each.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise ValueError("there are no values, so they have no mean")
    mean = float(scores.mean())
    sums, sizes = _clusters(scores, groups)
    if sums.size < FEWEST:
        return Interval(mean, None, None)
    drawn = _drawn_means(sums, sizes, samples, np.random.default_rng(seed))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    distances = left_out.mean() - left_out
    spread, rounding = np.square(distances).sum(), _rounding(scores)
    if spread < rounding**2:  # all values are alike
        return Interval(mean, mean, mean)
    acceleration = float(np.power(distances, 3).sum() / (6 * spread**1.5))
    below = float(np.mean(drawn < mean - rounding) + np.mean(drawn <= mean + rounding)) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / samples), 1 - 0.5 / samples))
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + _quantile(share, sums.size)
        ends.append(_NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(drawn, ends)
    return Interval(mean, float(low), float(high))


def paired_difference(
    first: Values,
    second: Values,
    *,
    best: Literal["highest", "lowest"] = "highest",
    groups: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Return the mean of first - second, with its interval: two results on the same images, in one order.

    What makes an image hard for both cancels, so that much smaller differences show than by comparing two
    intervals. `best`: which score is the better one; the rest as in `bootstrap_interval`. Raises `ValueError`
    if the two differ in length.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"{one.size} values cannot be paired with {other.size}: give both for each image")
    interval = bootstrap_interval(one - other, groups=groups, samples=samples, seed=seed, level=level)
    mean, low, high = interval.mean, interval.low, interval.high
    rounding = _rounding(one, other)
    if low is None or high is None or (low <= rounding and high >= -rounding):
        return Difference(mean, low, high, "tie")
    return Difference(mean, low, high, "better" if (mean > 0) == (best == "highest") else "worse")


def spread_over_seeds(values: Values) -> Spread:
    """Return mean and deviation of one score of several trainings. Raises `ValueError` if there is none.

    It tells what another training would give; the interval over images tells what other images would.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise ValueError("there are no values, so they have no mean")
    deviation = float(scores.std(ddof=1)) if scores.size > 1 else None
    return Spread(float(scores.mean()), deviation, scores.size)


def _rounding(*several: NDArray[np.float64]) -> float:
    """Return what means of such values may differ by though they are equal."""
    return _ROUNDING * max(1.0, *(float(np.abs(values).max()) for values in several))


def _clusters(
    scores: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum and number of the scores of each group, or of each image if there are no groups."""
    if groups is None:
        return scores, np.ones_like(scores)
    if len(groups) != scores.size:
        raise ValueError(f"{scores.size} values have {len(groups)} groups: give one for each")
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums, sizes = np.bincount(members, weights=scores), np.bincount(members)
    return sums.astype(np.float64), sizes.astype(np.float64)


def _quantile(share: float, count: int) -> float:
    """Return the quantile of Student's t for a mean of `count`, where BCa takes that of the normal.

    Draws spread less than means do, by the root of (count - 1) / count, and know nothing of the doubt about
    the spread itself: intervals of few images would be too narrow (Hesterberg, Am. Stat. 2015, section 3.4).
    Student's t is expanded in 1 / (count - 1) (Abramowitz and Stegun, 26.7.5).
    """
    z, freedom = _NORMAL.inv_cdf(share), count - 1
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    student = z + first / freedom + second / freedom**2 + third / freedom**3
    return student * math.sqrt(count / freedom)


def _drawn_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean over images of each of `samples` draws of as many groups as there are."""
    means = np.empty(samples)
    rows = max(1, _DRAWN_AT_ONCE // sums.size)
    for start in range(0, samples, rows):
        part = slice(start, min(start + rows, samples))
        drawn = rng.integers(0, sums.size, (part.stop - part.start, sums.size))
        means[part] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means
