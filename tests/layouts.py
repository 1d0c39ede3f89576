"""Small data sets of drawn images in each published layout, with the names that the published files have."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from samfit.data.drawn import draw_lesion, draw_lesions

TRAINING, TEST = 5, 3
"""Images of each split."""
SIZE = (48, 36)
"""Width and height of the images."""


def draw_layout(dataset: str, folder: Path) -> None:
    """Draw a data set in a layout: lesions, whatever the layout is for."""
    if dataset == "isic2016":
        draw_lesions(folder, training=TRAINING, test=TEST, size=SIZE)
        return
    draw = {"cod10k": _cod10k, "camo": _camo, "istd": _istd, "refuge": _refuge}[dataset]
    for name, number in draw(TRAINING, TEST):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(path.stem, number)).save(path)


def _picture(stem: str, number: int) -> np.ndarray:
    """Return the image of a number, or its mask where `number` is negative: the cup of it, or all of it."""
    image, mask = draw_lesion(np.random.default_rng([7, abs(number)]), *SIZE)
    if number > 0:
        return image
    truth = mask.astype(np.uint8) * 255
    return cv2.erode(truth, np.ones((3, 3), np.uint8)) if "cup" in stem else truth


def _numbers(training: int, test: int) -> Iterator[tuple[bool, int]]:
    """Yield whether it is a training image, and its number."""
    yield from ((number <= training, number) for number in range(1, training + test + 1))


def _cod10k(training: int, test: int) -> Iterator[tuple[str, int]]:
    for is_training, number in _numbers(training, test):
        split, stem = "Train" if is_training else "Test", f"COD10K-CAM-1-Aquatic-1-BatFish-{number}"
        yield f"{split}/Image/{stem}.jpg", number
        yield f"{split}/GT_Object/{stem}.png", -number
    yield "Train/Image/COD10K-NonCAM-1-Aquatic-0-Other-9.jpg", 99


def _camo(training: int, test: int) -> Iterator[tuple[str, int]]:
    for is_training, number in _numbers(training, test):
        yield f"Images/{'Train' if is_training else 'Test'}/camourflage_{number:05d}.jpg", number
        yield f"GT/camourflage_{number:05d}.png", -number


def _istd(training: int, test: int) -> Iterator[tuple[str, int]]:
    for is_training, number in _numbers(training, test):
        split, scene = ("train", (number + 1) // 2) if is_training else ("test", 90 + number)
        yield f"{split}/{split}_A/{scene}-{number}.png", number
        yield f"{split}/{split}_B/{scene}-{number}.png", -number
        yield f"{split}/{split}_C/{scene}-{number}.png", number


def _refuge(training: int, test: int) -> Iterator[tuple[str, int]]:
    for is_training, number in [*_numbers(training, test), (True, 100)]:
        split = "Validation" if number == 100 else "Training" if is_training else "Test"
        stem = f"{split}-400/g{number:04d}/g{number:04d}"
        yield f"{stem}.jpg", number
        for part in ("disc", "cup"):
            for rater in (1, 2):
                yield f"{stem}_seg_{part}_{rater}.png", -number
