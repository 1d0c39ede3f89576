"""Scores of a map of probabilities against a mask, as papers on camouflaged objects take them. No torch.

All take one image: `probability` (H, W) float64 in 0…1 and `truth` (H, W) bool. Their definitions are those
of `pysodmetrics`, which compares well with the authors' MATLAB code; each is called with one image, so that
nothing is kept of it. It is imported when a score is taken: `pip install '.[metrics]'`.
"""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def stretched(probability: NDArray[np.floating]) -> Map:
    """Return the map with its smallest value at 0 and its largest at 1; a map of one value stays as it is."""
    values = probability.astype(np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values


def s_measure(probability: Map, truth: Mask) -> float:
    """Return the S-measure with alpha 0.5 (arXiv 1708.00786), in 0…1.

    Without foreground in the truth it is 1 - mean probability; with nothing else, the mean probability.
    """
    from py_sod_metrics import Smeasure

    measure = Smeasure()
    similarity = measure.ssim
    # The centre of an object in the last row or column leaves empty quarters, of weight 0 and no mean.
    measure.ssim = lambda pred, gt: similarity(pred, gt) if gt.size else 0.0
    measure.step(probability, truth, normalize=False)
    return float(measure.get_results()["sm"])


def e_measure(probability: Map, truth: Mask) -> float:
    """Return the E-measure (arXiv 1805.10421), the mean over the thresholds 0, 1 … 255 of 255.

    In 0…1, but for its divisor: H·W - 1, as published, makes a perfect answer 1 + 1 / (H·W - 1). Without
    foreground in the truth it is the share of pixels below the threshold; with nothing else, the share above.
    """
    from py_sod_metrics import Emeasure

    measure = Emeasure()
    measure.step(probability, truth, normalize=False)
    return float(measure.get_results()["em"]["curve"].mean())


def weighted_f(probability: Map, truth: Mask) -> float:
    """Return the weighted F-measure with beta 1 (Margolin et al., CVPR 2014), in 0…1.

    Without foreground in the truth it is 0, whatever was answered.
    """
    from py_sod_metrics import WeightedFmeasure

    measure = WeightedFmeasure()
    measure.step(probability, truth, normalize=False)
    return float(measure.get_results()["wfm"])


def mae(probability: Map, truth: Mask) -> float:
    """Return the mean of |probability - truth|, in 0…1: the smaller the better."""
    return float(np.abs(probability - truth).mean())
