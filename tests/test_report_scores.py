"""Summaries and tables of scores: means over classes and images, intervals, differences, and their marks."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from samfit.metrics.intervals import bootstrap_interval, paired_difference
from samfit.metrics.protocols import DEFAULT, PROTOCOLS, Protocol
from samfit.metrics.scores import ImageScore
from samfit.report.scores import Scored, per_image_table, summarise

CLASSES = ("disc", "cup")


def scores(*dice: tuple[float, ...], names: tuple[str, ...] = ("dice", "iou")) -> list[ImageScore]:
    """One image a row, one class a number; the second metric is half of the first."""
    return [
        ImageScore(
            f"image {number}",
            {name: tuple(value / (index + 1) for value in row) for index, name in enumerate(names)},
            empty_target=tuple(value == 0 for value in row),
            empty_prediction=(False,) * len(row),
        )
        for number, row in enumerate(dice)
    ]


def scored(adapted, unadapted, protocol: Protocol = DEFAULT, prompt: str = "full-box", **more) -> Scored:
    known = {"prompt_class": None, "departures": ()}
    return Scored(protocol, prompt, adapted=adapted, unadapted=unadapted, **(known | more))


TWO = scored(scores((0.2, 0.4), (0.8, 1.0), (0.0, 0.9)), scores((0.1, 0.3), (0.1, 0.1), (0.2, 0.2)))


def test_means_are_over_classes_then_over_images():
    summary = summarise(TWO, CLASSES)
    assert summary["metrics"]["dice"]["mean"] == pytest.approx((0.3 + 0.9 + 0.45) / 3)
    assert summary["metrics"]["iou"]["mean"] == pytest.approx((0.3 + 0.9 + 0.45) / 6)
    assert summary["per_class"]["disc"]["dice"]["mean"] == pytest.approx(1 / 3)
    assert summary["unadapted"]["metrics"]["dice"]["mean"] == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    assert (summary["empty_targets"], summary["empty_predictions"]) == (1, 0)


def test_intervals_and_differences_are_over_images_or_over_groups():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 30))
    found = scored(scores(*first[:, None]), scores(*second[:, None]))
    for groups in (None, [number // 3 for number in range(30)]):
        summary = summarise(found, ("lesion",), groups)
        interval = bootstrap_interval(first, groups=groups)
        assert summary["metrics"]["dice"] == summary["per_class"]["lesion"]["dice"] == vars(interval)
        assert summary["difference"]["metrics"]["dice"] == vars(
            paired_difference(first, second, groups=groups)
        )


def test_the_lowest_error_is_the_better_one():
    low, high = (
        scores(*((value + number / 100,) for number in range(6)), names=("ber",)) for value in (0.1, 0.3)
    )
    summary = summarise(scored(low, high, PROTOCOLS["istd"]), ("shadow",))
    assert summary["difference"]["metrics"]["ber"]["verdict"] == "better"
    assert summary["difference"]["metrics"]["ber"]["mean"] < 0


def test_what_was_asked_and_departed_from_is_said():
    summary = summarise(replace(TWO, prompt="box", prompt_class="cup", departures=("a",)), CLASSES)
    assert (summary["protocol"], summary["prompt"], summary["prompt_class"]) == ("default", "box", "cup")
    assert (summary["prompt_from_truth"], summary["departures"]) == (True, ["a"])
    summary = summarise(replace(TWO, prompt_class="cup"), CLASSES)
    assert (summary["prompt_from_truth"], summary["prompt_class"]) == (False, None)
    assert summarise(replace(TWO, protocol=PROTOCOLS["cad"]), CLASSES)["scored_size"] == 512


def test_the_table_has_a_row_a_protocol_image_and_class_with_its_marks():
    error = scores((0.25, 0.5), names=("ber",))
    clicked = scored(error, error, PROTOCOLS["istd"], "click")
    rows = list(csv.DictReader(io.StringIO(per_image_table([TWO, clicked], CLASSES))))
    assert [(row["protocol"], row["image"], row["class"]) for row in rows] == [
        *(("default", f"image {number}", name) for number in range(3) for name in CLASSES),
        *(("istd", "image 0", name) for name in CLASSES),
    ]
    assert {(row["protocol"], row["prompt"], row["prompt_from_truth"]) for row in rows} == {
        ("default", "full-box", "0"),
        ("istd", "click", "1"),
    }
    assert (rows[0]["dice"], rows[0]["unadapted_dice"], rows[0]["ber"]) == ("0.200000", "0.100000", "")
    assert (rows[7]["dice"], rows[7]["ber"], rows[4]["empty_target"]) == ("", "0.500000", "1")


def test_an_answer_without_a_base_model_says_nothing_of_one():
    alone = scored(scores((0.2, 0.4), (0.8, 1.0)), None)
    summary = summarise(alone, CLASSES)
    assert not {"unadapted", "difference"} & set(summary)
    rows = list(csv.DictReader(io.StringIO(per_image_table([alone], CLASSES))))
    assert [row["dice"] for row in rows] == ["0.200000", "0.400000", "0.800000", "1.000000"]
    assert {row["unadapted_dice"] for row in rows} == {""}
