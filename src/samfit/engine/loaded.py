"""`load_run`: a finished run that segments images in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samfit.data.batches import to_prompts
from samfit.data.prompts import Points, make_prompt
from samfit.data.reading import read_image
from samfit.engine.devices import open_fabric
from samfit.engine.memory import OneByOne, on_device
from samfit.engine.models import FinishedRun, open_run
from samfit.engine.scoring import probability_of
from samfit.errors import DataError, SettingError
from samfit.runs import RunFolder
from samfit.settings import AttentionKind
from samfit.step import prediction_step
from samfit.types import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT


class LoadedRun:
    """A finished run, ready to segment images."""

    def __init__(self, run: FinishedRun, accelerator: Literal["auto", "cpu", "gpu"] = "auto"):
        self._run = run
        self._device = open_fabric(accelerator).device
        self._model = on_device(run.model, self._device).eval()
        self._pass = OneByOne()
        self.classes = run.model.classes
        """Names of the classes, in the order of every result."""

    def predict(
        self,
        image: NDArray[np.uint8] | Path | str,
        *,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
    ) -> dict[str, NDArray[np.bool_]]:
        """Return the mask (H, W) of each class. For the arguments see `probabilities`."""
        answers = self.probabilities(image, points=points, labels=labels, box=box)
        return {name: answer >= 0.5 for name, answer in answers.items()}

    def probabilities(
        self,
        image: NDArray[np.uint8] | Path | str,
        *,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the probability (H, W), 0…1, of each class.

        `image`: RGB (H, W, 3) uint8, or a file. `points`: clicks as (x, y) original pixels, `labels`: 1 for
        foreground and 0 for background, all foreground if not given; `box`: (x1, y1, x2, y2). Without any,
        the run's own prompt is used. Raises `SettingError` if that needs a mask or an argument has another
        form, `DataError` if the file cannot be read or the prompt does not fit the image or the backbone.
        """
        pixels = read_image(Path(image)) if isinstance(image, str | Path) else _checked(image)
        height, width = pixels.shape[:2]
        if len(points) or labels is not None or box is not None:
            return self.answer(pixels, _given_prompt(points, labels, box))
        return self.answer(pixels, self.own_prompt(height, width))

    def own_prompt(self, height: int, width: int) -> Points:
        """Return the prompt that the run was trained with, for an image without a mask."""
        kind = self._run.settings.prompt
        assert kind is not None, "a run's settings are resolved"
        if kind in ("click", "box"):
            raise SettingError(
                f"{self._run.folder.path} was trained with --prompt {kind}, so each image needs one: give a "
                "CSV or JSON file with --prompts FILE, or points or a box from Python"
            )
        return make_prompt(kind, None, height, width, np.random.default_rng(0))

    def check_prompt(self, name: str, prompt: Points, height: int, width: int) -> None:
        """Raise `DataError` if the prompt of the image `name` does not fit it or the backbone."""
        points, labels = prompt
        inside = (points >= 0) & (points <= (width, height))  # a coordinate that is no number is not inside
        outside = ~inside.all(1)
        if outside.any():
            x, y = points[outside.argmax()]
            raise DataError(f"{name}: the prompt ({x:g}, {y:g}) lies outside the image of {width} x {height}")
        card = self._run.model.backbone.card
        if (labels == NEGATIVE).any() and not card.negative_clicks:
            raise DataError(f"{name}: {card.name} knows no background clicks; leave out label 0")
        if card.prompt_slots is not None and len(labels) > card.prompt_slots:
            raise DataError(
                f"{name}: {len(labels)} clicks and corners of a box; {card.name} takes {card.prompt_slots}"
            )

    def answer(self, image: NDArray[np.uint8], prompt: Points) -> dict[str, NDArray[np.float32]]:
        """Return the probability (H, W) of each class for a prompt in original pixels.

        Raises `RunError` if memory runs out.
        """
        height, width = image.shape[:2]
        self.check_prompt("the image", prompt, height, width)
        frame, reader = self._model.backbone.frame, self._model.row.reader
        geometry = frame.geometry(height, width)
        box = bool(len(prompt[1])) and bool(prompt[1][-1] == BOTTOM_RIGHT)
        extra = None if reader is None else reader(image, frame)[None]
        pixels, prompts = frame.to_model(image)[None], to_prompts(*prompt, box, frame, geometry)

        def logits() -> Tensor:
            own = None if extra is None else extra.to(self._device)
            return prediction_step(self._model, pixels.to(self._device), own, prompts.to(self._device))

        answer = probability_of(self._pass(logits)[0], frame, geometry)
        return dict(zip(self.classes, answer, strict=True))


def load_run(
    path: Path | str,
    *,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    attention: AttentionKind = "auto",
) -> LoadedRun:
    """Open a finished run to segment images with it. Raises `RunError` if there is none."""
    run = open_run(RunFolder(Path(path)))
    run.model.backbone.attend(attention)
    return LoadedRun(run, accelerator)


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that the user gave. Raises `SettingError` if it is no (H, W, 3) uint8."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise SettingError(
            f"image: an array of shape {array.shape} and type {array.dtype}; expected (H, W, 3) uint8, RGB "
            "from 0 to 255"
        )
    return array


def _given_prompt(
    points: Sequence[Sequence[float]], labels: Sequence[int] | None, box: Sequence[float] | None
) -> Points:
    kinds = list(labels) if labels is not None else [POSITIVE] * len(points)
    if len(kinds) != len(points) or not set(kinds) <= {NEGATIVE, POSITIVE}:
        raise SettingError(f"labels {kinds}: expected 1 or 0 for each of {len(points)} points")
    if any(len(point) != 2 for point in points):
        raise SettingError(f"points {points}: expected (x, y) each")
    if box is not None and (len(box) != 4 or box[0] > box[2] or box[1] > box[3]):
        raise SettingError(f"box {box}: expected (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2")
    corners = [] if box is None else [box[:2], box[2:]]
    slots = kinds + ([] if box is None else [TOP_LEFT, BOTTOM_RIGHT])
    coordinates = np.array([*points, *corners], dtype=np.float32).reshape(-1, 2)
    return coordinates, np.array(slots, dtype=np.int64)
