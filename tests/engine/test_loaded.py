"""A loaded run answers arrays and files, with its own prompt or a given one, and refuses what is wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shortage_support import MESSAGE, Shortage

from samfit.defaults import resolve
from samfit.engine.loaded import LoadedRun
from samfit.engine.memory import OneByOne
from samfit.engine.models import FinishedRun
from samfit.errors import DataError, RunError, SettingError
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder
from samfit.settings import TrainSettings
from samfit.testing import small_backbone
from samfit.types import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT, Prompts

pytestmark = pytest.mark.usefixtures("quick_collection")

HEIGHT, WIDTH = 30, 50


def loaded(family: str = "sam-tiny", method: str = "cad", prompt: str | None = None, **more) -> LoadedRun:
    """Return a run as it is before the first step: what it answers does not matter here."""
    settings = TrainSettings(
        data=Path("d"), output=Path("o"), backbone=family, method=method, prompt=prompt, image_size=64
    )
    model = attach(small_backbone(family, image_size=64), method, **more)
    return LoadedRun(FinishedRun(RunFolder(Path("runs/one")), resolve(settings), model), accelerator="cpu")


@pytest.fixture(scope="module")
def run():
    return loaded()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def as_model_answers(run: LoadedRun, image: np.ndarray, points: list, labels: list, box: bool) -> np.ndarray:
    """Return the probabilities (C, H, W) step by step; `points` are pixels of the original image."""
    model, frame = run._model, run._model.backbone.frame
    scale = torch.tensor([64 / WIDTH, 38 / HEIGHT])  # 30 rows become 38.4, so 38
    mapped = torch.tensor(points, dtype=torch.float32).reshape(1, -1, 2) * scale
    prompts = Prompts(mapped, torch.tensor([labels], dtype=torch.int64).reshape(1, -1), has_box=box)
    extra = None if model.row.reader is None else model.row.reader(image, frame)[None]
    with torch.no_grad():
        low = model(frame.to_model(image)[None], extra, prompts)
    return frame.to_original(low, frame.geometry(HEIGHT, WIDTH))[0].sigmoid().numpy()


@pytest.mark.parametrize(
    ("given", "points", "labels", "box"),
    [
        ({}, [[0, 0], [WIDTH, HEIGHT]], [TOP_LEFT, BOTTOM_RIGHT], True),
        ({"points": [(3, 4), (20, 9)]}, [[3, 4], [20, 9]], [POSITIVE, POSITIVE], False),
        (
            {"points": np.array([[3, 4], [20, 9.5]]), "labels": [1, 0]},
            [[3, 4], [20, 9.5]],
            [POSITIVE, NEGATIVE],
            False,
        ),
        ({"box": (5, 6, 40, 20)}, [[5, 6], [40, 20]], [TOP_LEFT, BOTTOM_RIGHT], True),
        (
            {"points": [(3, 4)], "box": [5, 6, 40, 20]},
            [[3, 4], [5, 6], [40, 20]],
            [POSITIVE, TOP_LEFT, BOTTOM_RIGHT],
            True,
        ),
    ],
    ids=["own prompt", "clicks", "clicks of both kinds", "box", "click and box"],
)
def test_a_prompt_reaches_the_model_in_its_own_pixels(run, image, given, points, labels, box):
    expected = as_model_answers(run, image, points, labels, box)
    answer = run.probabilities(image, **given)
    assert list(answer) == ["foreground"]
    np.testing.assert_array_equal(answer["foreground"], expected[0])
    np.testing.assert_array_equal(run.predict(image, **given)["foreground"], expected[0] >= 0.5)


def test_a_run_without_prompts_is_asked_nothing(image):
    run = loaded(prompt="none")
    np.testing.assert_array_equal(
        run.probabilities(image)["foreground"], as_model_answers(run, image, [], [], False)[0]
    )


def test_every_class_has_its_mask(image):
    run = loaded(classes=("disc", "cup"))
    box = [[0, 0], [WIDTH, HEIGHT]], [TOP_LEFT, BOTTOM_RIGHT], True
    expected = as_model_answers(run, image, *box)
    answer = run.predict(image)
    assert run.classes == tuple(answer) == ("disc", "cup")
    np.testing.assert_array_equal(np.stack(list(answer.values())), expected >= 0.5)


def test_a_file_is_read_as_the_array_that_it_holds(run, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = run.predict(image)["foreground"]
    for given in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(run.predict(given)["foreground"], expected)
    with pytest.raises(DataError, match=r"none\.png"):
        run.predict(tmp_path / "none.png")


def test_the_given_array_is_not_changed_and_may_be_a_view(run, image):
    before = image.copy()
    before.flags.writeable = False
    expected = run.predict(before)["foreground"]
    np.testing.assert_array_equal(run.predict(image[::-1].copy()[::-1])["foreground"], expected)
    np.testing.assert_array_equal(before, image)


@pytest.mark.parametrize("kind", ["click", "box"])
def test_a_prompt_that_is_taken_from_a_mask_must_be_given(image, kind):
    run = loaded(method="decoder", prompt=kind)
    with pytest.raises(SettingError, match=rf"one was trained with --prompt {kind}, .* --prompts FILE"):
        run.predict(image)
    assert run.predict(image, points=[(3, 4)])["foreground"].shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
        np.zeros((3, HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
        np.zeros((0, WIDTH, 3), np.uint8),
    ],
    ids=["grey", "RGBA", "channels first", "float", "empty"],
)
def test_an_array_of_another_form_is_an_error(run, array):
    with pytest.raises(SettingError, match=r"expected \(H, W, 3\) uint8"):
        run.predict(array)


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ({"points": [(1, 2, 3)]}, SettingError, r"expected \(x, y\) each"),
        ({"points": [(1, 2)], "labels": [1, 0]}, SettingError, "expected 1 or 0 for each of 1 points"),
        ({"points": [(1, 2)], "labels": [2]}, SettingError, "expected 1 or 0"),
        ({"labels": [1]}, SettingError, "expected 1 or 0 for each of 0 points"),
        ({"box": (1, 2, 3)}, SettingError, r"expected \(x1, y1, x2, y2\)"),
        ({"box": (9, 2, 3, 9)}, SettingError, "x1 <= x2"),
        ({"box": (1, 9, 3, 2)}, SettingError, "y1 <= y2"),
        ({"points": [(WIDTH + 0.5, 2)]}, DataError, r"\(50\.5, 2\) lies outside the image of 50 x 30"),
        ({"points": [(3, -1)]}, DataError, "outside the image"),
        ({"box": (0, 0, WIDTH, HEIGHT + 1)}, DataError, "outside the image"),
        ({"points": [(float("nan"), 2)]}, DataError, "outside the image"),
    ],
)
def test_a_prompt_that_does_not_fit_is_an_error(run, image, prompt, error, said):
    with pytest.raises(error, match=said):
        run.predict(image, **prompt)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"points": [(1, 2)], "labels": [0]}, "efficientsam-ti knows no background clicks"),
        ({"points": [(1, 2)] * 7}, "7 clicks and corners of a box; efficientsam-ti takes 6"),
        ({"points": [(1, 2)] * 5, "box": (1, 2, 3, 4)}, "7 clicks and corners of a box"),
    ],
)
def test_a_prompt_that_the_backbone_does_not_know_is_an_error(image, prompt, said):
    run = loaded("efficientsam-ti", "decoder")
    with pytest.raises(DataError, match=said):
        run.predict(image, **prompt)


def test_the_model_predicts_in_evaluation_mode(image):
    run = loaded()
    before = {name: tensor.clone() for name, tensor in run._model.state_dict().items()}
    run.predict(image)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run._model.state_dict().items())
    training = FinishedRun(run._run.folder, run._run.settings, run._model.train())
    np.testing.assert_array_equal(
        LoadedRun(replace(training), accelerator="cpu").predict(image)["foreground"],
        run.predict(image)["foreground"],
    )


def test_a_prediction_that_ran_out_of_memory_is_the_one_that_it_would_have_been(run, image, caplog):
    with Shortage() as seen:
        expected = run.answer(image, run.own_prompt(HEIGHT, WIDTH))
    at = [number for number, name in enumerate(seen.names, 1) if name.startswith("aten::addmm")]
    with Shortage(at[len(at) // 2]):
        found = run.answer(image, run.own_prompt(HEIGHT, WIDTH))
    run._pass = OneByOne()  # others do not go on with smaller chunks
    assert len(caplog.records) == 1
    for name, probability in expected.items():
        torch.testing.assert_close(found[name], probability, rtol=0, atol=1e-5)


@pytest.fixture
def full(monkeypatch):
    """Return a function that lets copies to the device run out of memory at first, or always."""

    def fill(owner: type, times: int) -> None:
        copy, tried = owner.to, []

        def to(self, *place):
            tried.append(place)
            if len(tried) <= times:
                raise torch.OutOfMemoryError(MESSAGE)
            return copy(self, *place)

        monkeypatch.setattr(owner, "to", to)

    return fill


def test_what_is_predicted_from_goes_to_the_device_again_where_memory_ran_out(image, full):
    run = loaded()
    expected = run.probabilities(image)["foreground"]
    full(Prompts, 1)
    np.testing.assert_allclose(run.probabilities(image)["foreground"], expected, rtol=0, atol=1e-5)


def test_a_run_that_the_device_has_no_room_for_is_refused(full):
    full(AdaptedModel, 9)
    with pytest.raises(RunError, match="out of memory while the weights of the model"):
        loaded()
