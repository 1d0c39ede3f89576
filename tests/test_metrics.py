import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samfit.metrics import Counts, bootstrap_interval, count, dice, iou

MASKS = arrays.arrays(bool, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6)))


def sets(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]}


@given(MASKS)
def test_scores_equal_those_of_sets_of_pixels(pair):
    prediction, truth = sets(pair[0]), sets(pair[1])
    counts = count(pair[0], pair[1])
    assert counts.true_positive == len(prediction & truth)
    assert counts.false_positive == len(prediction - truth)
    assert counts.false_negative == len(truth - prediction)
    assert counts.true_negative == pair[0].size - len(prediction | truth)
    if prediction or truth:
        assert dice(counts) == pytest.approx(2 * len(prediction & truth) / (len(prediction) + len(truth)))
        assert iou(counts) == pytest.approx(len(prediction & truth) / len(prediction | truth))
    else:
        assert dice(counts) == iou(counts) == 1


@pytest.mark.parametrize(
    ("prediction", "truth", "score"),
    [(False, False, 1), (True, False, 0), (False, True, 0), (True, True, 1)],
)
def test_empty_masks_score_as_stated(prediction, truth, score):
    counts = count(np.full((3, 4), prediction), np.full((3, 4), truth))
    assert dice(counts) == iou(counts) == score


def test_classes_are_counted_apart():
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((2, 3, 5, 7)) > 0.5
    together = count(prediction, truth)
    apart = [count(p, t) for p, t in zip(prediction, truth, strict=True)]
    np.testing.assert_array_equal(dice(together), [dice(counts) for counts in apart])
    np.testing.assert_array_equal(iou(together), [iou(counts) for counts in apart])


def test_a_single_score_is_a_plain_number():
    assert type(dice(Counts(1, 2, 3, 4))) is float


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        count(np.ones((2, 3), bool), np.ones((3, 2), bool))


@given(arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
def test_the_interval_lies_around_the_mean_and_within_the_values(values):
    interval = bootstrap_interval(values, samples=200)
    assert interval.mean == values.mean()
    assert values.min() - 1e-12 <= interval.low <= interval.high <= values.max() + 1e-12


def test_one_image_has_an_interval_of_its_own_score():
    interval = bootstrap_interval([0.7])
    assert interval.low == interval.high == interval.mean == 0.7


def test_the_interval_repeats_with_its_seed_only():
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_interval_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    interval = bootstrap_interval(values)
    expected = 1.96 * values.std() / np.sqrt(400)
    assert interval.high - interval.mean == pytest.approx(expected, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(expected, rel=0.1)
    narrow = bootstrap_interval(values, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_no_image_has_no_interval():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


def test_metrics_load_no_torch():
    code = "import sys, samfit.metrics, samfit.metrics.smoothed; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
