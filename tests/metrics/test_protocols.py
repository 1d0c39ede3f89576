"""Scores of images under each protocol, against numbers of published code and against plain loops."""

import json
from dataclasses import replace

import metric_references as reference
import numpy as np
import pytest
from parity_support import load_golden
from support import golden

from samfit.errors import SettingError
from samfit.metrics import METRICS, SURFACES
from samfit.metrics.protocols import DEFAULT, PROTOCOLS, Protocol, from_truth, protocol_of
from samfit.metrics.scores import measures_borders, score, with_borders
from samfit.metrics.surfaces import Ruler
from samfit.settings import PROMPTS

GUIDE = PROTOCOLS["msa-guide"]
CASES = (
    "one_class",
    "one_class_batch3",
    "perfect",
    "empty_target",
    "empty_both",
    "empty_prediction",
    "full_target",
    "soft_target",
    "two_classes",
)


def published() -> dict:
    return json.loads(golden("msa_metrics.json").read_text())


def scores_of(case: str, protocol: Protocol) -> np.ndarray:
    """Return (metric, class): means over the images of a golden case."""
    stored, _ = load_golden("msa_metrics")
    target, logits = (stored[f"{case}.in.{name}"].numpy() for name in ("target", "logits"))
    probability = 1 / (1 + np.exp(-logits))
    found = [score(mask, answer, "", protocol) for mask, answer in zip(target, probability, strict=True)]
    return np.mean([[image.values[name] for name in ("iou", "dice")] for image in found], axis=0)


def test_every_published_case_is_compared():
    assert set(published()["cases"]) == {*CASES, "three_classes"}
    assert published()["thresholds"] == list(GUIDE.thresholds)


@pytest.mark.parametrize("case", CASES)
def test_the_guide_equals_its_published_numbers(case):
    expected = np.reshape(published()["cases"][case]["eval_seg"], (2, -1))
    np.testing.assert_allclose(scores_of(case, GUIDE), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", [*CASES, "three_classes"])
@pytest.mark.parametrize("threshold", GUIDE.thresholds)
def test_every_threshold_of_the_guide_equals_its_published_numbers(case, threshold):
    numbers = published()["cases"][case]["per_threshold"][str(threshold)]
    found = scores_of(case, replace(GUIDE, thresholds=(threshold,)))
    np.testing.assert_allclose(found, [numbers["iou"], numbers["dice"]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"thresholds": (0.5,)}, {"smoothing": {}}, {"smoothing": {"dice": 1.0, "iou": 1.0}}],
    ids=["one threshold", "not smoothed", "smoothed more"],
)
def test_a_change_of_the_guide_would_be_seen(change):
    worst = max(
        np.abs(scores_of(case, replace(GUIDE, **change)) - scores_of(case, GUIDE)).max() for case in CASES
    )
    assert worst > 1e-6


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scores_of_several_classes_are_those_of_plain_loops(name):
    if any(METRICS[metric].packages for metric in PROTOCOLS[name].metrics):
        pytest.importorskip("py_sod_metrics")
    protocol, rng = PROTOCOLS[name], np.random.default_rng(0)
    truth, probability = rng.random((3, 6, 9)).astype(np.float32), rng.random((3, 6, 9)).astype(np.float32)
    truth[1], probability[2] = 0, 0
    found = score(truth, probability, "a", protocol)
    assert (found.id, tuple(found.values)) == ("a", protocol.metrics)
    assert found.empty_target == (False, True, False)
    assert found.empty_prediction == (False, False, True)
    for index, (mask, answer) in enumerate(zip(truth, probability, strict=True)):
        for metric, values in found.values.items():
            assert values[index] == pytest.approx(by_loops(metric, protocol, mask, answer), abs=1e-6)


def by_loops(metric: str, protocol: Protocol, truth: np.ndarray, probability: np.ndarray) -> float:
    function = getattr(reference, metric)
    if METRICS[metric].kind == "maps":
        low, high = probability.min(), probability.max()
        stretched = (probability - low) / (high - low) if high > low else probability
        return function(stretched.astype(float), truth >= 0.5)
    total = []
    for threshold in protocol.thresholds:
        pair = [
            values >= threshold if protocol.reached else values > threshold for values in (probability, truth)
        ]
        smooth = [protocol.smoothing[metric]] if metric in protocol.smoothing else []
        total.append(function(*pair, *smooth))
    return sum(total) / len(total)


def test_a_value_at_the_threshold_is_foreground_where_the_protocol_says_so():
    half = np.full((1, 2, 2), 0.5, np.float32)
    nothing = np.zeros((1, 2, 2), np.float32)
    for name, protocol in PROTOCOLS.items():
        if protocol.thresholds == (0.5,) and "dice" in protocol.metrics:
            [dice] = score(half, nothing, "", protocol).values["dice"]
            assert (dice < 0.5) == protocol.reached, name
    assert not GUIDE.reached


def test_soft_truths_of_several_raters_meet_the_thresholds_of_the_guide():
    """Seven raters: 2 of 7 pixels agree with all, 5 with four of them."""
    truth = np.array([[[1.0, 1.0, 4 / 7, 4 / 7, 4 / 7, 4 / 7, 4 / 7, 0.0]]], np.float32)
    exact = score(truth, truth, "", GUIDE).values
    assert exact["dice"] == exact["iou"] == (pytest.approx(1),)
    four = score(truth, (truth > 0).astype(np.float32), "", GUIDE).values["iou"]
    assert four == (pytest.approx((3 * 1 + 2 * 2 / 7) / 5, abs=1e-6),)


def test_borders_are_measured_beside_one_mask_of_the_original_size():
    assert {name for name, row in PROTOCOLS.items() if measures_borders(row)} == {
        "default",
        "no-truth",
        "istd",
    }
    protocol = with_borders(DEFAULT)
    assert protocol.metrics == (*DEFAULT.metrics, *SURFACES)
    pytest.importorskip("monai")
    truth = np.zeros((1, 9, 9), np.float32)
    answer = truth.copy()
    truth[0, 2:5, 2:5], answer[0, 2:5, 4:7] = 1, 1
    values = score(truth, answer, "", protocol, Ruler((1.0, 0.5), tolerance=1.0)).values
    assert values["hd95"] == (1.0,)  # two columns of half a unit
    assert values["surface_dice"] == (1.0,)
    assert score(truth, answer, "", protocol, Ruler()).values["hd95"] == (2.0,)


@pytest.mark.parametrize("row", PROTOCOLS.values(), ids=lambda row: row.name)
def test_a_row_says_everything_that_a_score_depends_on(row):
    assert set(row.metrics) <= METRICS.keys()
    assert set(row.smoothing) <= set(row.metrics)
    assert set(row.prompts) <= set(PROMPTS)
    traits = row.traits()
    assert list(traits) == [
        "scores",
        "prompt",
        "scored size",
        "thresholds",
        "smoothing",
        "empty masks",
        "mean over",
        "checkpoint chosen on",
    ]
    assert all(traits.values())
    assert all(text in row.describe() for text in traits.values())


@pytest.mark.parametrize(
    ("name", "trait", "words"),
    [
        ("default", "prompt", "any (click and box are from the truth)"),
        ("no-truth", "prompt", "full-box or none, not from the truth"),
        ("cad", "prompt", "full-box, not from the truth"),
        ("cad", "scored size", "512 × 512, aspect lost"),
        ("cad", "smoothing", "Dice 0.001, IoU 0.001"),
        ("msa-guide", "prompt", "1 positive click, from the truth"),
        ("msa-guide", "thresholds", "0.1, 0.3, 0.5, 0.7, 0.9 on probability and truth, foreground above it"),
        ("msa-guide", "mean over", "thresholds, then classes, then images"),
        ("default", "mean over", "classes, then images"),
        ("default", "empty masks", "Dice and IoU 1 if both are empty, 0 if one is"),
        ("cod", "scores", "S-measure, E-measure, weighted F, MAE"),
        ("istd", "scores", "BER"),
    ],
)
def test_what_protocols_are_is_what_their_names_promise(name, trait, words):
    assert PROTOCOLS[name].traits()[trait] == words


def test_clicks_and_boxes_are_from_the_truth():
    assert [prompt for prompt in PROMPTS if from_truth(prompt)] == ["click", "box"]
    assert not any(map(from_truth, PROTOCOLS["no-truth"].prompts))


def test_an_unknown_protocol_gets_the_nearest():
    with pytest.raises(SettingError, match=r"--protocol: unknown protocol 'defalt'; did you mean 'default'"):
        protocol_of("defalt")
    assert protocol_of("cad") is PROTOCOLS["cad"]
