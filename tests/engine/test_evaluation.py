"""`evaluate` beside its command: intervals, the choice of overlays, and the base model that comes back."""

import numpy as np
import pytest
import torch

from samfit.data.batches import Inputs, Scored
from samfit.engine.evaluation import _metrics, _Worst
from samfit.engine.scoring import ImageScore
from samfit.methods import attach
from samfit.report.overlays import draw_overlay
from samfit.runs import RunFolder
from samfit.testing import small_backbone
from samfit.types import Prompts, Sample


def image_score(name: str, *dice: float) -> ImageScore:
    no = (False,) * len(dice)
    return ImageScore(name, dice, tuple(value / 2 for value in dice), no, no)


def test_metrics_are_means_over_classes_then_over_images():
    scores = [image_score("a", 0.2, 0.4), image_score("b", 0.8, 1.0)]
    metrics = _metrics(scores)
    assert metrics["dice"]["mean"] == pytest.approx(0.6)
    assert metrics["iou"]["mean"] == pytest.approx(0.3)
    assert _metrics(scores, 1)["dice"]["mean"] == pytest.approx(0.7)


def test_an_interval_lies_round_the_mean_and_narrows_with_more_images():
    rng = np.random.default_rng(0)
    widths = []
    for count in (10, 100, 1000):
        values = rng.beta(8, 2, count)
        dice = _metrics([image_score(str(n), value) for n, value in enumerate(values)])["dice"]
        assert dice["low"] < dice["mean"] < dice["high"]
        # About two standard errors to each side.
        expected = 2 * 1.96 * values.std() / np.sqrt(count)
        assert dice["high"] - dice["low"] == pytest.approx(expected, rel=0.25)
        widths.append(dice["high"] - dice["low"])
    assert widths[0] > widths[1] > widths[2]


def test_equal_scores_have_an_interval_without_width():
    dice = _metrics([image_score(str(n), 0.75) for n in range(5)])["dice"]
    assert dice == {"mean": 0.75, "low": 0.75, "high": 0.75}


def scored(tmp_path, name: str, height: int = 8) -> Scored:
    nothing = Prompts(torch.zeros(1, 0, 2), torch.zeros(1, 0), has_box=False)
    return Scored(
        sample=Sample(name, "test", tmp_path / f"{name}.png", {}),
        image=np.full((height, 10, 3), 99, np.uint8),
        masks=np.ones((1, height, 10), np.float32),
        inputs=Inputs(torch.zeros(1, 3, 16, 16), None, nothing),
    )


@pytest.mark.parametrize("count", [0, 1, 3, 6, 9])
def test_overlays_are_those_of_the_worst_images_in_their_order(count, tmp_path):
    worst = _Worst(count)
    dice = {"e": 0.9, "b": 0.1, "d": 0.5, "a": 0.0, "f": 1.0, "c": 0.3}
    for name, value in dice.items():
        probability = np.full((1, 8, 10), value, np.float32)
        worst.add(scored(tmp_path, name), probability, image_score(name, value))
    worst.write(RunFolder(tmp_path))
    written = sorted(path.name for path in (tmp_path / "evaluation/overlays").glob("*"))
    assert written == [f"{number:02d}_{name}.png" for number, name in enumerate("abcdef"[:count], 1)]


def test_images_of_the_same_score_are_all_kept_apart(tmp_path):
    worst = _Worst(2)
    for name in "abcd":
        worst.add(scored(tmp_path, name), np.zeros((1, 8, 10), np.float32), image_score(name, 0.5))
    worst.write(RunFolder(tmp_path))
    assert len(list((tmp_path / "evaluation/overlays").glob("*.png"))) == 2


def test_an_overlay_shows_prediction_and_truth(tmp_path):
    from PIL import Image

    worst, item = _Worst(1), scored(tmp_path, "a")
    probability = np.zeros((1, 8, 10), np.float32)
    probability[:, 2:6, 3:7] = 0.5
    worst.add(item, probability, image_score("a", 0.2))
    worst.write(RunFolder(tmp_path))
    expected = draw_overlay(item.image, probability >= 0.5, item.masks >= 0.5)
    with Image.open(tmp_path / "evaluation/overlays/01_a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_without_the_base_nothing_can_be_disabled():
    model = attach(small_backbone("sam-tiny", image_size=32), "decoder")
    with pytest.raises(RuntimeError, match="keep_base"), model.disabled():
        pass
