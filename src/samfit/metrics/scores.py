"""The scores of one image under a protocol. Nothing is kept of an image but its row of numbers. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from samfit.metrics import METRICS, SURFACES, metric_function
from samfit.metrics.counts import count
from samfit.metrics.maps import stretched
from samfit.metrics.protocols import DEFAULT, Protocol
from samfit.metrics.surfaces import Ruler


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, one value a class."""

    id: str
    values: Mapping[str, tuple[float, ...]]
    """Metric to its value for each class."""
    empty_target: tuple[bool, ...]
    """Whether the truth of the class has no foreground at a threshold of 0.5."""
    empty_prediction: tuple[bool, ...]


def score(
    truth: NDArray[np.float32],
    probability: NDArray[np.float32],
    sample_id: str,
    protocol: Protocol = DEFAULT,
    ruler: Ruler | None = None,
) -> ImageScore:
    """Compare probabilities with truth, both (C, H, W) in 0…1, at the size that the protocol scores at.

    `ruler`: needed by metrics of borders. Raises `ValueError` if the shapes differ.
    """
    values = [
        _class_values(mask, answer, protocol, ruler) for mask, answer in zip(truth, probability, strict=True)
    ]
    return ImageScore(
        id=sample_id,
        values={name: tuple(value[name] for value in values) for name in protocol.metrics},
        empty_target=tuple(not _foreground(mask, 0.5, protocol).any() for mask in truth),
        empty_prediction=tuple(not _foreground(answer, 0.5, protocol).any() for answer in probability),
    )


def measures_borders(protocol: Protocol) -> bool:
    """Return whether a protocol can have metrics of borders: one mask of the original size an image.

    At another size the spacing of pixels is lost, and to take one of several thresholds would be arbitrary.
    """
    counted = all(METRICS[name].kind == "counts" for name in protocol.metrics)
    return protocol.size is None and len(protocol.thresholds) == 1 and counted


def with_borders(protocol: Protocol) -> Protocol:
    """Return the protocol with the metrics of borders beside its own."""
    return replace(protocol, metrics=(*protocol.metrics, *SURFACES))


def _class_values(
    truth: NDArray[np.float32], probability: NDArray[np.float32], protocol: Protocol, ruler: Ruler | None
) -> dict[str, float]:
    """Return the metrics of one class."""
    masks = [
        (_foreground(probability, level, protocol), _foreground(truth, level, protocol))
        for level in protocol.thresholds
    ]
    counts = [count(*pair) for pair in masks]
    values = {}
    for name in protocol.metrics:
        function = metric_function(name)
        if METRICS[name].kind == "counts":
            smooth = {"smooth": protocol.smoothing[name]} if name in protocol.smoothing else {}
            values[name] = float(np.mean([function(counted, **smooth) for counted in counts]))
        elif METRICS[name].kind == "maps":
            map_ = stretched(probability) if protocol.stretch else probability.astype(np.float64)
            values[name] = function(map_, masks[0][1])
        else:
            values[name] = function(*masks[0], ruler)
    return values


def _foreground(values: NDArray[np.float32], threshold: float, protocol: Protocol) -> NDArray[np.bool_]:
    return values >= threshold if protocol.reached else values > threshold
