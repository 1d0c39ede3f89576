"""Scores of masks and of whole sets, against plain counting."""

import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from shortage_support import Shortage

from samfit import processes
from samfit.data.batches import Preparation, PromptRule, ScoredSet
from samfit.data.drawn import draw_lesions
from samfit.data.inspect import inspect
from samfit.data.sources import find_samples
from samfit.engine import scoring
from samfit.engine.scoring import predict_set, score_protocols, score_set
from samfit.errors import RunError
from samfit.methods import attach
from samfit.metrics.protocols import PROTOCOLS
from samfit.metrics.scores import score
from samfit.testing import small_backbone

pytestmark = pytest.mark.usefixtures("quick_collection")

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
        assert result.values["dice"][index] == pytest.approx(dice)
        assert result.values["iou"][index] == pytest.approx(iou)
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
    assert (result.values["dice"][0], result.empty_target[0], result.empty_prediction[0]) == expected
    assert result.values["iou"] == result.values["dice"]


def test_truth_and_probability_at_the_threshold_are_foreground():
    half = np.array([[[0.5, np.nextafter(np.float32(0.5), np.float32(0))]]], np.float32)
    full = np.array([[[1.0, 0.0]]], np.float32)
    assert score(half, full, "a").values["dice"] == score(full, half, "a").values["dice"] == (1.0,)


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
            assert one.values["dice"] == pytest.approx(other.values["dice"], abs=0.01)


def test_probabilities_come_at_the_size_of_each_image(model, samples):
    frame = model.backbone.frame
    answers = list(predict_set(model, frame, samples, [4, 0, 2], 2, ALONE))
    assert [answer.item.sample.id for answer in answers] == [samples.samples[n].id for n in (4, 0, 2)]
    for answer in answers:
        probability = answer.probability()
        assert probability.shape == (1, *answer.item.image.shape[:2]) == answer.truth().shape
        assert probability.dtype == np.float32
        assert 0 <= probability.min() <= probability.max() <= 1


def test_answer_and_truth_meet_at_the_size_of_a_protocol(model, samples):
    """An answer of one value, and a truth of two halves, stay what they are in a square."""
    [answer] = predict_set(model, model.backbone.frame, samples, [0], 1, ALONE)
    flat = replace(answer, logits=torch.full_like(answer.logits, 0.3))
    np.testing.assert_allclose(flat.probability(24), 1 / (1 + np.exp(-0.3)), rtol=1e-6)
    assert flat.probability(24).shape == answer.truth(24).shape == (1, 24, 24)
    masks = np.zeros((1, 30, 40), np.float32)
    masks[:, :, 20:] = 1
    truth = replace(answer, item=replace(answer.item, masks=masks)).truth(20)
    assert (truth[:, :, :10].max(), truth[:, :, 10:].min()) == (0, 1)


def test_a_square_holds_what_the_frame_shows_of_the_image(model, samples):
    """Resized to the original size, an answer that falls to the right is about the same in a square."""
    for answer in predict_set(model, model.backbone.frame, samples, range(5), 5, ALONE):
        falling = torch.linspace(5, -5, answer.logits.shape[-1]).expand_as(answer.logits)
        answer = replace(answer, logits=falling)
        original = answer.probability()[0]
        square = cv2.resize(answer.probability(128)[0], original.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(square - original).mean() < 0.02


def test_several_protocols_score_one_answer(model, samples, monkeypatch):
    asked = []
    step = scoring.prediction_step
    monkeypatch.setattr(scoring, "prediction_step", lambda *inputs: asked.append(1) or step(*inputs))
    rows = [PROTOCOLS[name] for name in ("default", "cad", "msa-guide")]
    found = score_protocols(model, model.backbone.frame, samples, ALONE, 5, rows)
    assert len(asked) == 1
    assert list(found) == ["default", "cad", "msa-guide"]
    assert found["default"] == score_set(model, model.backbone.frame, samples, ALONE, 5)
    for answer in predict_set(model, model.backbone.frame, samples, range(5), 5, ALONE):
        for row in rows:
            [own] = [one for one in found[row.name] if one.id == answer.item.sample.id]
            assert own == score(answer.truth(row.size), answer.probability(row.size), own.id, row)


def test_nothing_of_an_image_stays_but_its_scores(model, samples, monkeypatch):
    """While one image is scored, those before it are gone, their decoded pixels too where none are kept."""
    monkeypatch.setattr("samfit.data.batches._DECODED_BYTES", 0)
    one_by_one = ScoredSet(samples.samples, samples.preparation)
    before: list[weakref.ref] = []

    def watch(answer, _):
        gc.collect()
        assert [reference() for reference in before] == [None] * len(before)
        before.extend(weakref.ref(part) for part in (answer.item.image, answer.item.masks, answer.logits))

    score_protocols(
        model,
        model.backbone.frame,
        one_by_one,
        ALONE,
        1,
        [PROTOCOLS["default"], PROTOCOLS["cad"]],
        watch=watch,
    )
    assert len(before) == 15


@pytest.mark.parametrize("images", [10, 40])
def test_no_more_than_a_batch_is_held_however_many_images_there_are(model, samples, images):
    several = [replace(samples.samples[number % 5], id=f"image {number}") for number in range(images)]
    seen: list[weakref.ref] = []
    alive = []

    def watch(answer, _):
        gc.collect()
        seen.append(weakref.ref(answer.item))
        alive.append(sum(reference() is not None for reference in seen))

    frame, rows = model.backbone.frame, [PROTOCOLS["default"], PROTOCOLS["cad"]]
    score_protocols(model, frame, ScoredSet(several, samples.preparation), ALONE, 4, rows, watch=watch)
    assert len(alive) == images
    assert max(alive) == 4


def test_every_scored_sample_is_shown_to_the_watcher(model, samples):
    seen = []
    results = score_set(
        model,
        model.backbone.frame,
        samples,
        ALONE,
        2,
        watch=lambda answer, found: seen.append((answer, found["default"])),
    )
    assert [result for _, result in seen] == results
    for answer, result in seen:
        assert score(answer.truth(), answer.probability(), answer.item.sample.id) == result


def running_out(model, most):
    """Return the model on a device with memory for `most` images, and how many passed in each attempt."""
    passed = []

    def answer(frame, *inputs):
        passed.append(len(frame))
        if len(frame) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return model(frame, *inputs)

    return answer, passed


def test_a_batch_that_memory_does_not_suffice_for_is_scored_in_halves(model, samples, caplog):
    answer, passed = running_out(model, 1)
    found = score_set(answer, model.backbone.frame, samples, ALONE, 4)
    assert found == score_set(model, model.backbone.frame, samples, ALONE, 1)
    assert passed == [4, 2, 1, 1, 1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory while 4 images passed the model: repeating it with 2 at once",
        "out of memory while 2 images passed the model: repeating it with 1 at once",
    ]


def test_a_single_image_is_tried_in_smaller_chunks_before_it_is_an_error(model, samples):
    answer, passed = running_out(model, 0)
    with pytest.raises(RunError, match="out of memory while a single image"):
        score_set(answer, model.backbone.frame, samples, ALONE, 2)
    assert passed == [2, 1, 1, 1]


class OnDevice:
    """Logits (C, 4g, 4g) on a device that has memory for nothing more."""

    device = torch.device("cuda")

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def __getitem__(self, _) -> "OnDevice":
        return self

    def to(self, device: torch.device) -> torch.Tensor:
        """Run out of memory, except on the CPU."""
        if device == self.device:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.logits[None]


def test_an_answer_that_is_too_large_for_the_device_is_made_on_the_cpu(model, samples):
    [answer] = predict_set(model, model.backbone.frame, samples, [0], 1, ALONE)
    held = replace(answer, logits=OnDevice(answer.logits))
    np.testing.assert_array_equal(held.probability(), answer.probability())


def test_an_answer_that_is_too_large_for_the_machine_is_an_error_that_says_so(model, samples):
    [answer] = predict_set(model, model.backbone.frame, samples, [0], 1, ALONE)
    with (
        Shortage(named="aten::upsample_bilinear2d"),
        pytest.raises(RunError, match="the 25 x 25 pixels of its"),
    ):
        answer.probability()


def test_each_process_scores_its_own_share(model, samples, monkeypatch):
    """Two processes, one after the other: what they gather together is what one process finds."""
    shares: list[dict] = []

    def gathered(own: dict) -> list[dict]:
        shares.append(own)
        return [shares[0], own]

    monkeypatch.setattr(processes, "gathered", gathered)
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
