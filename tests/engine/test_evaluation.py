"""`evaluate` beside its command: which overlays, what they say, and the base model that comes back."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from samfit.data.batches import Inputs, Scored
from samfit.defaults import as_in_run, resolve
from samfit.engine import evaluation, pictures
from samfit.engine.evaluation import _departures
from samfit.engine.pictures import Worst
from samfit.engine.scoring import Answer
from samfit.errors import RunError
from samfit.frame import Frame
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.metrics.protocols import DEFAULT, PROTOCOLS, Protocol
from samfit.metrics.scores import ImageScore
from samfit.report.overlays import draw_overlay
from samfit.runs import RunFolder
from samfit.settings import EvaluateSettings, TrainSettings
from samfit.testing import small_backbone
from samfit.types import Prompts, Sample


def image_score(name: str, *dice: float) -> ImageScore:
    no = (False,) * len(dice)
    return ImageScore(name, {"dice": dice, "iou": tuple(value / 2 for value in dice)}, no, no)


def answer(name: str, probability: np.ndarray | float = 0.0) -> Answer:
    """An answer of known probabilities about a grey image of 10 x 8 pixels whose truth is everything."""
    nothing = Prompts(torch.zeros(1, 0, 2), torch.zeros(1, 0), has_box=False)
    item = Scored(
        sample=Sample(name, "test", Path(f"{name}.png"), {}),
        image=np.full((8, 10, 3), 99, np.uint8),
        masks=np.ones((1, 8, 10), np.float32),
        inputs=Inputs(torch.zeros(1, 3, 16, 16), None, nothing),
    )

    class Known(Answer):
        def probability(self, size=None):
            return np.broadcast_to(np.float32(probability), (1, 8, 10))

    return Known(item, torch.zeros(1, 4, 4), FRAME)


FRAME = Frame(16, (0, 0, 0), (1, 1, 1))


def worst_of(count: int, *, protocol: Protocol = DEFAULT, **values: float) -> Worst:
    worst = Worst(count, protocol, "full-box")
    for name, value in values.items():
        score = ImageScore(name, {protocol.metrics[0]: (value,)}, (False,), (False,))
        worst.add(answer(name), {protocol.name: score})
    return worst


def written(worst: Worst, folder: Path) -> list[str]:
    worst.write(RunFolder(folder))
    return sorted(path.name for path in (folder / "evaluation/overlays").glob("*"))


@pytest.mark.parametrize("count", [0, 1, 3, 6, 9])
def test_overlays_are_those_of_the_worst_images_in_their_order(count, tmp_path):
    worst = worst_of(count, e=0.9, b=0.1, d=0.5, a=0.0, f=1.0, c=0.3)
    assert written(worst, tmp_path) == [
        f"{number:02d}_{name}.png" for number, name in enumerate("abcdef"[:count], 1)
    ]


def test_where_the_lowest_score_is_the_best_the_highest_is_shown(tmp_path):
    worst = worst_of(2, protocol=PROTOCOLS["istd"], a=0.1, b=0.4, c=0.3)
    assert written(worst, tmp_path) == ["01_b.png", "02_c.png"]


def test_images_of_the_same_score_are_all_kept_apart(tmp_path):
    assert len(written(worst_of(2, a=0.5, b=0.5, c=0.5, d=0.5), tmp_path)) == 2


def test_an_overlay_shows_prediction_and_truth_and_says_how_it_was_scored(tmp_path, monkeypatch):
    captions = []

    def with_caption(picture, lines):
        captions.append(list(lines))
        return picture

    monkeypatch.setattr(pictures, "with_caption", with_caption)
    probability = np.zeros((1, 8, 10), np.float32)
    probability[:, 2:6, 3:7] = 0.5
    shown = answer("a", probability)
    worst = Worst(1, PROTOCOLS["msa-guide"], "click")
    worst.add(shown, {"msa-guide": image_score("a", 0.25)})
    assert written(worst, tmp_path) == ["01_a.png"]
    assert captions == [["Dice 0.2500", "protocol: msa-guide", "prompt: click, from the truth"]]
    with Image.open(tmp_path / "evaluation/overlays/01_a.png") as picture:
        expected = draw_overlay(shown.item.image, probability >= 0.5, shown.item.masks >= 0.5)
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_a_prompt_that_needs_no_truth_is_not_marked(tmp_path, monkeypatch):
    captions = []
    monkeypatch.setattr(pictures, "with_caption", lambda image, lines: captions.append(lines[-1]) or image)
    written(worst_of(1, a=0.5), tmp_path)
    assert captions == ["prompt: full-box"]


def test_without_the_base_nothing_can_be_disabled():
    model = attach(small_backbone("sam-tiny", image_size=32), "decoder")
    with pytest.raises(RuntimeError, match="keep_base"), model.disabled():
        pass


@pytest.mark.parametrize("classes", [("disc", "cup"), ("cup",)])
@pytest.mark.parametrize(
    ("trained", "asked", "said"),
    [
        ({"prompt": "box", "box_jitter": 20}, {"box_jitter": 0}, ["with --box-jitter 20, asked with 0"]),
        ({"prompt": "box"}, {"prompt_class": "cup"}, ["without --prompt-class, asked with cup"]),
        (
            {"prompt": "click"},
            {"clicks": 2, "negative_clicks": 3},
            ["with --clicks 1, asked with 2", "with --negative-clicks 0, asked with 3"],
        ),
        ({"prompt": "click", "clicks": 3}, {"prompt": "box"}, ["with --prompt click, asked with box"]),
        ({"prompt": "click", "clicks": 3}, {}, []),
    ],
)
def test_every_setting_of_the_prompt_that_is_not_that_of_the_training_is_said(trained, asked, said, classes):
    before = resolve(TrainSettings(data=Path("data"), output=Path("run"), **trained))
    settings = as_in_run(EvaluateSettings(run=Path("run"), **asked), before)
    run = SimpleNamespace(
        settings=before, model=SimpleNamespace(classes=classes), folder=RunFolder(Path("run"))
    )
    one_and_all = len(classes) == 1 and "prompt_class" in asked
    found = list(_departures(DEFAULT, settings, run, elsewhere=False))
    assert found == ([] if one_and_all else [f"trained {words}" for words in said])


def test_a_model_that_the_device_has_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(AdaptedModel, "to", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory.")))
    run = SimpleNamespace(model=attach(small_backbone("sam-tiny", image_size=32), "decoder"))
    asked = {"default": EvaluateSettings(run=Path("r"))}
    with pytest.raises(RunError, match="out of memory while the weights of the model"):
        evaluation._score(run, [], None, [DEFAULT], asked, None, None, None)
