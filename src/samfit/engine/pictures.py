"""Small pictures of every image of an evaluation: truth, answer, its errors, the base model's answer.

They are written as the answers come, so that memory does not grow with the data set.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samfit.engine.scoring import Answer
from samfit.files import atomic_path
from samfit.metrics.scores import ImageScore
from samfit.report.overlays import draw_errors, draw_overlay
from samfit.report.panels import panel_path

SIDE = 192
"""The longer side of a picture, in pixels."""
_QUALITY = 80


class Pictures:
    """Draws the images of one evaluation into a folder; those of an earlier one go."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._adapted = self._unadapted = 0
        for old in folder.glob("*.jpg"):
            old.unlink()

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
