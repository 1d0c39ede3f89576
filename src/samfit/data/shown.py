"""What an image encoder sees of a data set: each image in some of its eight views."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from samfit.data.prompts import prompt_seed
from samfit.data.reading import read_image
from samfit.data.transforms import UNMOVED, Augmentation, View, draw_view, warp_image
from samfit.frame import Frame


@dataclass(frozen=True, order=True)
class Shown:
    """One image in one view."""

    image: Path
    view: View


class Frames(Dataset[Tensor]):
    """Model frames (1, 3, N, N) of images in views. Views of one image should follow each other."""

    def __init__(self, frame: Frame, page: int | None):
        self.frame, self.page = frame, page
        self._last: tuple[Path, NDArray[np.uint8]] | None = None

    def __getitem__(self, shown: Shown) -> Tensor:
        """Return one frame, the same to the last bit as an augmented training image has it."""
        if self._last is None or self._last[0] != shown.image:
            self._last = shown.image, read_image(shown.image, self.page)
        _, image = self._last
        return self.frame.to_model(warp_image(image, *shown.view.matrix(*image.shape[:2])))[None]


def augmentation_rng(seed: int, sample_id: str, epoch: int) -> np.random.Generator:
    """Return what decides how the image of a sample is augmented in an epoch."""
    return np.random.default_rng(prompt_seed(seed, f"augment {sample_id}", epoch))


def view_of(augment: Augmentation, seed: int, sample_id: str, epoch: int) -> View:
    """Return the view in which the image of a sample is shown in an epoch.

    Raises `ValueError` for `affine`, which shows an image differently each time.
    """
    if augment == "affine":
        raise ValueError("affine augmentation has no fixed views")
    return UNMOVED if augment == "none" else draw_view(augmentation_rng(seed, sample_id, epoch))
