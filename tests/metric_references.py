"""Every metric a second time, written from its definition, and a grid of masks to compare on."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Mask = NDArray[np.bool_]
Map = NDArray[np.float64]
Pixel = tuple[int, int]

SHAPES = ((12, 16), (7, 5), (1, 9), (8, 1))


def masks(shape: tuple[int, int]) -> dict[str, Mask]:
    """Return masks of one shape by what they are, the empty and the full one among them."""
    rng = np.random.default_rng(list(shape))
    rows, columns = np.indices(shape)
    centre = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 3) ** 2
    last = np.zeros(shape, bool)
    last[-1, -1] = True
    return {
        "empty": np.zeros(shape, bool),
        "full": np.ones(shape, bool),
        "disc": centre < (max(shape) / 4) ** 2,
        "random": rng.random(shape) < 0.3,
        "last pixel": last,
        "last row": rows == shape[0] - 1,
    }


def pairs() -> Iterator[tuple[str, Mask, Mask]]:
    """Yield every mask of the grid as prediction with every one as truth."""
    for shape in SHAPES:
        found = masks(shape)
        for one, prediction in found.items():
            for other, truth in found.items():
                yield f"{shape}: {one} for {other}", prediction, truth


def maps() -> Iterator[tuple[str, Map, Mask]]:
    """Yield maps of probabilities with every mask of the grid as truth."""
    for shape in SHAPES:
        rng = np.random.default_rng([1, *shape])
        found = masks(shape)
        probabilities = {name: mask.astype(np.float64) for name, mask in found.items()}
        probabilities |= {"noise": rng.random(shape), "grey": np.full(shape, 0.5)}
        probabilities["soft"] = np.clip(found["disc"] * 0.7 + rng.random(shape) * 0.3, 0, 1)
        for one, probability in probabilities.items():
            for other, truth in found.items():
                yield f"{shape}: {one} for {other}", probability, truth


def pixels(mask: Mask) -> set[Pixel]:
    return {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]}


def dice(prediction: Mask, truth: Mask, smooth: float = 0.0) -> float:
    one, other = pixels(prediction), pixels(truth)
    if not one and not other and not smooth:
        return 1.0
    return (2 * len(one & other) + smooth) / (len(one) + len(other) + smooth)


def iou(prediction: Mask, truth: Mask, smooth: float = 0.0) -> float:
    one, other = pixels(prediction), pixels(truth)
    if not one and not other and not smooth:
        return 1.0
    return (len(one & other) + smooth) / (len(one | other) + smooth)


def ber(prediction: Mask, truth: Mask) -> float:
    rates = []
    for kind in (True, False):
        wrong = [
            answer != kind for answer, real in zip(prediction.flat, truth.flat, strict=True) if real == kind
        ]
        if wrong:
            rates.append(sum(wrong) / len(wrong))
    return sum(rates) / len(rates)


def mae(probability: Map, truth: Mask) -> float:
    wrong = [abs(p - float(t)) for p, t in zip(probability.flat, truth.flat, strict=True)]
    return math.fsum(wrong) / len(wrong)


def s_measure(probability: Map, truth: Mask) -> float:
    """Equations 4 to 9 of arXiv 1708.00786, with the weights of the authors' code."""
    if not truth.any():
        return 1 - probability.mean()
    if truth.all():
        return probability.mean()
    return max(0.0, 0.5 * _object(probability, truth) + 0.5 * _region(probability, truth))


def _object(probability: Map, truth: Mask) -> float:
    def likeness(values: Map) -> float:
        deviation = (
            math.sqrt(np.square(values - values.mean()).sum() / (len(values) - 1)) if len(values) > 1 else 0
        )
        return 2 * values.mean() / (values.mean() ** 2 + 1 + deviation)

    share = truth.mean()
    return share * likeness(probability[truth]) + (1 - share) * likeness(1 - probability[~truth])


def _region(probability: Map, truth: Mask) -> float:
    rows, columns = np.nonzero(truth)
    # Python's round and numpy's both take halves to the even neighbour.
    split_y, split_x = round(rows.mean()) + 1, round(columns.mean()) + 1
    total = 0.0
    for part_y in (slice(0, split_y), slice(split_y, None)):
        for part_x in (slice(0, split_x), slice(split_x, None)):
            values, mask = probability[part_y, part_x].ravel(), truth[part_y, part_x].ravel().astype(float)
            if values.size:
                total += values.size / truth.size * _similarity(values, mask)
    return total


def _similarity(values: Map, mask: Map) -> float:
    mean, other = values.mean(), mask.mean()
    free = max(1, values.size - 1)
    spread = (((values - mean) ** 2).sum() + ((mask - other) ** 2).sum()) / free
    together = ((values - mean) * (mask - other)).sum() / free
    above, below = 4 * mean * other * together, (mean**2 + other**2) * spread
    if above:
        return above / below
    return 1.0 if not below else 0.0


def e_measure(probability: Map, truth: Mask) -> float:
    """Equations 4 to 7 of arXiv 1805.10421, with the divisor of the authors' code, over 256 thresholds."""
    levels = np.floor(probability * 255)
    total = 0.0
    for threshold in range(256):
        answer = (levels >= threshold).astype(float)
        mask = truth.astype(float)
        if not truth.any():
            enhanced = 1 - answer
        elif truth.all():
            enhanced = answer
        else:
            one, other = answer - answer.mean(), mask - mask.mean()
            aligned = 2 * one * other / (one**2 + other**2 + np.finfo(float).eps)
            enhanced = (1 + aligned) ** 2 / 4
        total += enhanced.sum() / (truth.size - 1)
    return total / 256


def weighted_f(probability: Map, truth: Mask) -> float:
    """Equations 6 to 15 of Margolin et al. 2014; which of several nearest pixels counts is scipy's choice."""
    if not truth.any():
        return 0.0
    height, width = truth.shape
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(probability - truth)
    spread = np.array([[error[tuple(nearest[:, y, x])] for x in range(width)] for y in range(height)])
    kernel = np.array([[math.exp(-(y * y + x * x) / 50) for x in range(-3, 4)] for y in range(-3, 4)])
    kernel /= kernel.sum()
    padded = np.pad(spread, 3)
    recall, right, wrong = [], 0.0, 0.0
    for y in range(height):
        for x in range(width):
            if truth[y, x]:
                blurred = (padded[y : y + 7, x : x + 7] * kernel).sum()
                weighted = min(error[y, x], blurred)
                recall.append(weighted)
                right += 1 - weighted
            else:
                wrong += error[y, x] * (2 - math.exp(math.log(0.5) / 5 * distance[y, x]))
    precision = right / (right + wrong) if right + wrong else 0.0
    found = 1 - sum(recall) / len(recall)
    return 2 * precision * found / (precision + found) if precision + found else 0.0


def border(mask: Mask) -> list[Pixel]:
    """Return the pixels of a mask that have a neighbour to a side outside it, or outside the image."""
    inside = pixels(mask)
    sides = ((-1, 0), (1, 0), (0, -1), (0, 1))
    return [(y, x) for y, x in sorted(inside) if any((y + dy, x + dx) not in inside for dy, dx in sides)]


def distances(one: Mask, other: Mask, spacing: tuple[float, float]) -> list[float]:
    """Return the distance of each border pixel of one mask to the nearest of the other."""
    return [
        min(math.hypot((y - v) * spacing[0], (x - u) * spacing[1]) for v, u in border(other))
        for y, x in border(one)
    ]


def hd95(prediction: Mask, truth: Mask, spacing: tuple[float, float]) -> float:
    if prediction.any() != truth.any():
        return math.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1])
    if not truth.any():
        return 0.0
    both = (distances(prediction, truth, spacing), distances(truth, prediction, spacing))
    return max(float(np.percentile(each, 95)) for each in both)


def surface_dice(prediction: Mask, truth: Mask, spacing: tuple[float, float], tolerance: float) -> float:
    if prediction.any() != truth.any():
        return 0.0
    if not truth.any():
        return 1.0
    both = distances(prediction, truth, spacing) + distances(truth, prediction, spacing)
    return sum(distance <= tolerance for distance in both) / len(both)
