"""Scores of masks and of whole sets, against plain counting."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from samfit.data.batches import Preparation, PromptRule, ScoredSet
from samfit.data.drawn import draw_lesions
from samfit.data.inspect import inspect
from samfit.data.sources import find_samples
from samfit.engine.scoring import predict_set, score, score_set
from samfit.methods import attach
from samfit.testing import small_backbone

ALONE = SimpleNamespace(global_rank=0, world_size=1, device=torch.device("cpu"))
"""What scoring needs of a Fabric."""


def by_hand(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """Count Dice and IoU of two boolean masks pixel by pixel."""
    both = either = total = 0
    for one, other in zip(truth.ravel().tolist(), answer.ravel().tolist(), strict=True):
        both += one and other
        either += one or other
        total += one + other
    return (2 * both / total, both / either) if total else (1.0, 1.0)


def test_scores_are_those_counted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth, probability = rng.random((3, 9, 7)), rng.random((3, 9, 7))
    result = score(truth.astype(np.float32), probability.astype(np.float32), "a")
    for index in range(3):
        dice, iou = by_hand(truth[index] >= 0.5, probability[index] >= 0.5)
        assert result.dice[index] == pytest.approx(dice)
        assert result.iou[index] == pytest.approx(iou)
    assert result.id == "a"
    assert result.empty_target == result.empty_prediction == (False, False, False)


NOTHING, SOMETHING = np.zeros((1, 2, 3), np.float32), np.full((1, 2, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("truth", "probability", "expected"),
    [
        (NOTHING, NOTHING, (1.0, True, True)),
        (NOTHING, SOMETHING, (0.0, True, False)),
        (SOMETHING, NOTHING, (0.0, False, True)),
        (SOMETHING, SOMETHING, (1.0, False, False)),
    ],
    ids=["both empty", "truth empty", "answer empty", "both full"],
)
def test_empty_masks_count_as_said(truth, probability, expected):
    result = score(truth, probability, "a")
    assert (result.dice[0], result.empty_target[0], result.empty_prediction[0]) == expected
    assert result.iou == result.dice


def test_truth_and_probability_at_the_threshold_are_foreground():
    half = np.array([[[0.5, np.nextafter(np.float32(0.5), np.float32(0))]]], np.float32)
    full = np.array([[[1.0, 0.0]]], np.float32)
    assert score(half, full, "a").dice == score(full, half, "a").dice == (1.0,)


def test_another_shape_is_an_error():
    with pytest.raises(ValueError):
        score(np.zeros((1, 2, 3), np.float32), np.zeros((1, 3, 2), np.float32), "a")
    with pytest.raises(ValueError):
        score(np.zeros((2, 2, 3), np.float32), np.zeros((1, 2, 3), np.float32), "a")


@pytest.fixture(scope="module")
def model():
    return attach(small_backbone("sam-tiny", image_size=32), "cad", classes=("lesion",)).eval()


@pytest.fixture(scope="module")
def samples(tmp_path_factory, model):
    """Five images of different sizes, in an order of their own."""
    found = []
    for number, size in enumerate([(40, 30), (30, 40), (64, 20), (25, 25), (33, 50)]):
        folder = tmp_path_factory.mktemp("drawn")
        draw_lesions(folder, training=1, test=0, size=size, seed=number)
        source = find_samples("isic2016", folder)
        found.append((source, source.samples[0]))
    reading = inspect(found[0][0]).reading
    chosen = [
        type(sample)(f"image {number}", "test", sample.image, sample.masks)
        for number, (_, sample) in enumerate(found)
    ]
    order = [chosen[index] for index in (3, 0, 4, 1, 2)]
    rule = PromptRule("full-box")
    frame = model.backbone.frame
    return ScoredSet(order, Preparation(("lesion",), reading, frame, rule, model.row.reader))


def test_results_come_in_the_order_of_the_samples_whatever_the_batch(model, samples):
    results = {
        size: score_set(model, model.backbone.frame, samples, ALONE, batch_size=size) for size in (1, 2, 5, 9)
    }
    for found in results.values():
        assert [result.id for result in found] == [sample.id for sample in samples.samples]
        for one, other in zip(found, results[1], strict=True):
            assert one.dice == pytest.approx(other.dice, abs=0.01)


def test_probabilities_come_at_the_size_of_each_image(model, samples):
    frame = model.backbone.frame
    answers = list(predict_set(model, frame, samples, [4, 0, 2], 2, ALONE))
    assert [item.sample.id for item, _ in answers] == [samples.samples[n].id for n in (4, 0, 2)]
    for item, probability in answers:
        assert probability.shape == (1, *item.image.shape[:2]) == item.masks.shape
        assert probability.dtype == np.float32
        assert 0 <= probability.min() <= probability.max() <= 1


def test_every_scored_sample_is_shown_to_the_watcher(model, samples):
    seen = []
    results = score_set(
        model,
        model.backbone.frame,
        samples,
        ALONE,
        2,
        watch=lambda item, probability, result: seen.append((item, probability, result)),
    )
    assert [result for _, _, result in seen] == results
    for item, probability, result in seen:
        assert score(item.masks, probability, item.sample.id) == result


def test_each_process_scores_its_own_share(model, samples, monkeypatch):
    """Two processes, one after the other: what they gather together is what one process finds."""
    shares: list[dict] = []

    def gather(gathered: list[dict], own: dict) -> None:
        shares.append(own)
        gathered[:] = [shares[0], own]

    monkeypatch.setattr("samfit.engine.scoring.dist.all_gather_object", gather)
    frame = model.backbone.frame
    alone = score_set(model, frame, samples, ALONE, 1)
    shared = []
    for rank in (0, 1):
        fabric = SimpleNamespace(global_rank=rank, world_size=2, device=torch.device("cpu"))
        try:
            shared = score_set(model, frame, samples, fabric, 1)
        except KeyError:
            assert rank == 0  # the other has not scored its share yet
    assert [len(share) for share in shares] == [3, 2]
    assert shared == alone
