"""Pictures of an evaluation: small ones of every image, and overlays of the worst.

They take answers as these come and keep the worst alone, so that memory does not grow with the data set.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samfit.engine.scoring import Answer
from samfit.files import atomic_path, remove
from samfit.metrics import METRICS
from samfit.metrics.protocols import Protocol, from_truth
from samfit.metrics.scores import ImageScore
from samfit.report.overlays import draw_errors, draw_overlay, with_caption, write_png
from samfit.report.panels import panel_path
from samfit.runs import RunFolder

SIDE = 192
"""The longer side of a picture, in pixels."""
_QUALITY = 80


class Pictures:
    """Draws the images of one evaluation into a folder; those of an earlier one go."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._adapted = self._unadapted = 0
        for old in folder.glob("*.jpg"):
            remove(old)

    def adapted(self, answer: Answer, _: Mapping[str, ImageScore]) -> None:
        """Draw the next image with its truth, the answer and the errors of the answer."""
        self._adapted += 1
        image, truth, mask = _small(answer)
        self._write(self._adapted, "image", image)
        self._write(self._adapted, "truth", draw_overlay(image, np.zeros_like(truth), truth))
        self._write(self._adapted, "adapted", draw_overlay(image, mask))
        self._write(self._adapted, "errors", draw_errors(image, mask, truth))

    def unadapted(self, answer: Answer, _: Mapping[str, ImageScore]) -> None:
        """Draw the answer of the base model to the next image."""
        self._unadapted += 1
        image, _truth, mask = _small(answer)
        self._write(self._unadapted, "unadapted", draw_overlay(image, mask))

    def _write(self, number: int, panel: str, picture: NDArray[np.uint8]) -> None:
        with atomic_path(panel_path(self._folder, number, panel)) as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=_QUALITY)


class Worst:
    """Keeps the images with the worst score by the first metric of a protocol, for their overlays."""

    def __init__(self, count: int, protocol: Protocol, prompt: str):
        self._count, self._protocol, self._prompt = count, protocol, prompt
        self._metric = METRICS[protocol.metrics[0]]
        self._kept: list[tuple[float, str, _Shown]] = []

    def add(self, answer: Answer, scores: Mapping[str, ImageScore]) -> None:
        """Take one scored image; nothing is kept of those that are better than the worst."""
        name = answer.item.sample.id
        score = float(np.mean(scores[self._protocol.name].values[self._metric.name]))
        rank = score if self._metric.best == "lowest" else -score
        if len(self._kept) == self._count and (not self._kept or (rank, name) <= self._kept[0][:2]):
            return
        shown = _Shown(answer.item.image, answer.item.masks >= 0.5, answer.probability() >= 0.5, score)
        heapq.heappush(self._kept, (rank, name, shown))
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def write(self, folder: RunFolder) -> None:
        """Write the overlays, the worst with the lowest number; those of an earlier evaluation go."""
        target = folder.evaluation / "overlays"
        for old in target.glob("*.png"):
            remove(old)
        source = ", from the truth" if from_truth(self._prompt) else ""
        for number, (_, name, shown) in enumerate(sorted(self._kept, key=lambda e: e[:2], reverse=True), 1):
            caption = (
                f"{self._metric.title} {shown.score:.4f}",
                f"protocol: {self._protocol.name}",
                f"prompt: {self._prompt}{source}",
            )
            picture = with_caption(draw_overlay(shown.image, shown.mask, shown.truth), caption)
            # A character has four bytes at most, the name of a file 255.
            write_png(target / f"{number:02d}_{name[:60]}.png", picture)


@dataclass(frozen=True)
class _Shown:
    """What an overlay shows: image (H, W, 3), truth and prediction (C, H, W), and the score of the image."""

    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    score: float


def _small(answer: Answer) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return image (h, w, 3), truth and answer (C, h, w), reduced to the size of a picture."""
    image = answer.item.image
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    masks = [
        np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in several]) >= 0.5
        for several in (answer.item.masks, (answer.probability() >= 0.5).astype(np.float32))
    ]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)), masks[0], masks[1]
