"""The mean training mask: what an answer scores that does not look at the image."""

import time
from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samfit.backbones import card_of
from samfit.compare.jobs import Job
from samfit.compare.plain import write_scores, write_summary
from samfit.data.reading import read_masks
from samfit.engine.devices import open_fabric, peak_in_words
from samfit.engine.training import look_at
from samfit.frame import Frame

SIDE = 256
"""Side of the square, in pixels, in which masks are averaged."""
_SURE = 1e-6
"""How near to 0 and 1 a probability comes, so that it has a logit."""


def mean_mask(masks: Iterable[NDArray[np.float32]], side: int = SIDE) -> NDArray[np.float32]:
    """Return the share of the masks that have foreground at each pixel of a square: (C, side, side) in 0…1.

    `masks`: (C, H, W) in 0…1, of any sizes; each is brought to the square, aspect lost, and counts alike.
    Raises `ValueError` if there is none.
    """
    total, count = None, 0
    for mask in masks:
        shrinks = side <= min(mask.shape[1:])
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        squares = [cv2.resize(one, (side, side), interpolation=interpolation) for one in mask]
        total = np.stack(squares).astype(np.float64) + (0 if total is None else total)
        count += 1
    if total is None:
        raise ValueError("there are no masks, so they have no mean")
    return (total / count).astype(np.float32)


class _Always(torch.nn.Module):
    """Answers every image with the same logits (C, S, S)."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, frame: Tensor, *_: object) -> Tensor:
        return self.logits.expand(len(frame), *self.logits.shape)


def score_mean_mask(job: Job) -> None:
    """Take the mean of the training masks, validation images left out, and score it on the test images."""
    began = time.perf_counter()
    data = look_at(job.train)
    reading, classes = data.inspection.reading, data.found.classes
    mask = mean_mask(read_masks(sample, reading, classes) for sample in data.training)
    logits = torch.from_numpy(mask).logit(_SURE)
    card = card_of(job.train.backbone)
    frame = Frame(SIDE, card.mean, card.std, "squeeze")
    fabric = open_fabric("cpu")
    write_scores(job, data, _Always(logits), frame, fabric)
    cost = {
        "trained_parameters": 0,
        **peak_in_words(fabric.device),
        "seconds": round(time.perf_counter() - began, 3),
    }
    write_summary(job, data, cost)
