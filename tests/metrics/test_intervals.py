"""Intervals hold what they promise: in simulations, at their limits, and with ties."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samfit.metrics import intervals
from samfit.metrics.intervals import FEWEST, bootstrap_interval, paired_difference, spread_over_seeds

SHARES = arrays.arrays(np.float64, st.integers(6, 20), elements=st.floats(0, 1))
TRIALS = 400
SLACK = 3 * np.sqrt(0.95 * 0.05 / TRIALS)
"""Three standard errors of a coverage found in so many trials."""


def like_dice(rng: np.random.Generator, count: int) -> np.ndarray:
    """Scores like those of images: most near 0.9, some far below; their mean is 0.8."""
    return rng.beta(4, 1, count)


def like_patients(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[int]]:
    """Scores of one to five images of each patient, who have much in common; their mean is 0.8."""
    sizes = rng.integers(1, 6, count)
    patients = np.repeat(np.arange(count), sizes)
    return 0.8 + rng.normal(0, 0.1, count)[patients] + rng.normal(0, 0.03, patients.size), patients.tolist()


def coverage(hits: list[bool]) -> float:
    assert len(hits) == TRIALS
    return float(np.mean(hits))


@pytest.mark.parametrize("images", [20, 60])
def test_intervals_hold_the_mean_of_all_images_as_often_as_they_say(images):
    rng = np.random.default_rng(images)
    hits = []
    for trial in range(TRIALS):
        interval = bootstrap_interval(like_dice(rng, images), samples=500, seed=trial)
        hits.append(interval.low <= 0.8 <= interval.high)
    assert coverage(hits) == pytest.approx(0.95, abs=SLACK)


def test_intervals_over_patients_hold_it_too_and_those_over_their_images_do_not():
    rng = np.random.default_rng(0)
    hits, ignored = [], []
    for trial in range(TRIALS):
        values, patients = like_patients(rng, 30)
        interval = bootstrap_interval(values, groups=patients, samples=500, seed=trial)
        hits.append(interval.low <= 0.8 <= interval.high)
        interval = bootstrap_interval(values, samples=500, seed=trial)
        ignored.append(interval.low <= 0.8 <= interval.high)
    assert coverage(hits) == pytest.approx(0.95, abs=SLACK)
    assert coverage(ignored) < 0.85


def test_a_difference_that_is_not_there_is_rarely_called_a_win():
    rng = np.random.default_rng(1)
    verdicts = []
    for trial in range(TRIALS):
        hard = like_dice(rng, 30)
        first, second = hard + rng.normal(0, 0.02, 30), hard + rng.normal(0, 0.02, 30)
        verdicts.append(paired_difference(first, second, samples=500, seed=trial).verdict)
    assert coverage([verdict == "tie" for verdict in verdicts]) == pytest.approx(0.95, abs=SLACK)
    assert {"better", "worse"} <= set(verdicts)


def test_pairs_show_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(2)
    hard = like_dice(rng, 40)
    first, second = hard + 0.01 + rng.normal(0, 0.005, 40), hard
    one, other = bootstrap_interval(first), bootstrap_interval(second)
    assert one.low < other.high
    assert other.low < one.high
    assert paired_difference(first, second).verdict == "better"
    assert paired_difference(second, first).verdict == "worse"
    assert paired_difference(first, second, best="lowest").verdict == "worse"


def test_the_mirrored_difference_has_the_mirrored_interval():
    rng = np.random.default_rng(3)
    first, second = rng.random(30), rng.random(30)
    one, other = paired_difference(first, second), paired_difference(second, first)
    np.testing.assert_allclose(
        [one.mean, one.low, one.high], [-other.mean, -other.high, -other.low], atol=1e-12
    )


@pytest.mark.parametrize("images", range(2, 9))
def test_few_images_do_not_make_a_win_of_chance(images):
    """At most 1 in 20 wins are promised; the fewest images that have an interval come close to that."""
    rng = np.random.default_rng(images)
    wins = []
    for trial in range(TRIALS):
        first, second = like_dice(rng, images), like_dice(rng, images)
        wins.append(paired_difference(first, second, samples=300, seed=trial).verdict != "tie")
    if images < FEWEST:
        assert not any(wins)
    else:
        assert 0 < coverage(wins) < 0.05 + 2 * SLACK


def test_equal_results_are_ties():
    values = np.linspace(0.1, 0.9, 9)
    difference = paired_difference(values, values)
    assert (difference.low, difference.high, difference.verdict) == (0, 0, "tie")


@pytest.mark.parametrize("scale", [1, 500])
def test_what_rounding_leaves_of_equal_results_is_no_win(scale):
    one, other = [scale * (0.1 + 0.2)] * 7, [scale * 0.3] * 7
    assert one != other
    assert paired_difference(one, other).verdict == paired_difference(other, one).verdict == "tie"
    assert paired_difference([value + 1e-6 for value in one], other).verdict == "better"


def test_with_fewer_than_six_images_or_groups_every_difference_is_a_tie():
    few = paired_difference([0.9] * 5, [0.1] * 5)
    assert (few.mean, few.low, few.high, few.verdict) == (pytest.approx(0.8), None, None, "tie")
    assert paired_difference([0.9] * 6, [0.1] * 6).verdict == "better"
    assert paired_difference([0.9] * 9, [0.1] * 9, groups=[*"aabbccdde"]).verdict == "tie"
    assert paired_difference([0.9] * 9, [0.1] * 9, groups=[*"aabbccdef"]).verdict == "better"


@given(SHARES)
def test_the_interval_lies_around_the_mean_and_within_the_values(values):
    interval = bootstrap_interval(values, samples=200)
    assert interval.mean == values.mean()
    assert values.min() - 1e-12 <= interval.low <= interval.high <= values.max() + 1e-12


@given(SHARES, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_interval_moves_with_the_values(values, scale, shift):
    one = bootstrap_interval(values, samples=100)
    other = bootstrap_interval(scale * values + shift, samples=100)
    expected = [scale * end + shift for end in (one.mean, one.low, one.high)]
    np.testing.assert_allclose([other.mean, other.low, other.high], expected, atol=1e-6)


@given(SHARES, st.randoms(use_true_random=False))
def test_a_group_for_each_image_changes_nothing_whatever_its_name(values, random):
    names = [f"patient {number}" for number in range(values.size)]
    random.shuffle(names)
    assert bootstrap_interval(values, groups=names, samples=50) == bootstrap_interval(values, samples=50)


def test_images_of_one_group_count_once_in_the_interval_and_each_in_the_mean():
    values, patients = [0.9] * 50 + [0.1, 0.5, 0.7, 0.2, 0.6], ["a"] * 50 + [*"bcdef"]
    interval = bootstrap_interval(values, groups=patients)
    assert interval.mean == pytest.approx(np.mean(values))
    plain = bootstrap_interval(values)
    assert interval.high - interval.low > 3 * (plain.high - plain.low)


def test_few_images_or_groups_have_a_mean_and_no_interval():
    alone = bootstrap_interval([0.7])
    assert (alone.mean, alone.low, alone.high) == (0.7, None, None)
    groups = bootstrap_interval([0.2, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3], groups=[*"aabbcde"])
    assert (groups.mean, groups.low, groups.high) == (pytest.approx(0.3), None, None)


def test_equal_values_have_an_interval_without_width():
    interval = bootstrap_interval([0.1] * 7)
    assert interval.low == interval.high == interval.mean


def test_the_interval_repeats_with_its_seed_only():
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_drawing_in_parts_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).random(30)
    whole = bootstrap_interval(values)
    monkeypatch.setattr("samfit.metrics.intervals._DRAWN_AT_ONCE", 40)
    assert bootstrap_interval(values) == whole


def test_the_interval_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    interval = bootstrap_interval(values)
    expected = 1.96 * values.std() / np.sqrt(400)
    assert interval.high - interval.mean == pytest.approx(expected, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(expected, rel=0.1)
    narrow = bootstrap_interval(values, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


@pytest.mark.parametrize("sign", [1, -1])
def test_with_the_quantiles_of_the_normal_the_interval_is_that_of_scipy(monkeypatch, sign):
    bootstrap = pytest.importorskip("scipy.stats").bootstrap
    values = sign * np.random.default_rng(6).lognormal(0, 1, 40)
    reference = bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=1).confidence_interval
    monkeypatch.setattr(intervals, "_quantile", lambda share, count: NormalDist().inv_cdf(share))
    interval = bootstrap_interval(values, samples=20000)
    width = reference.high - reference.low
    np.testing.assert_allclose([interval.low, interval.high], reference, atol=0.015 * width)


def test_the_quantiles_are_those_of_students_t():
    t = pytest.importorskip("scipy.stats").t
    for count in (6, 10, 30, 300):
        for share in (0.025, 0.05, 0.975):
            expected = t.ppf(share, count - 1) * np.sqrt(count / (count - 1))
            assert intervals._quantile(share, count) == pytest.approx(expected, rel=2e-3)


def test_skewed_values_have_a_longer_side_towards_their_tail():
    interval = bootstrap_interval(like_dice(np.random.default_rng(5), 40))
    assert interval.mean - interval.low > 1.05 * (interval.high - interval.mean)


def test_seeds_have_a_mean_and_a_deviation():
    assert spread_over_seeds([0.8, 0.9, 1.0]).deviation == pytest.approx(0.1)
    assert spread_over_seeds([0.8, 0.9, 1.0]).mean == pytest.approx(0.9)
    alone = spread_over_seeds([0.8])
    assert (alone.mean, alone.deviation, alone.seeds) == (0.8, None, 1)


def test_wrong_numbers_of_values_are_refused():
    for function in (bootstrap_interval, spread_over_seeds):
        with pytest.raises(ValueError, match="no values"):
            function([])
    with pytest.raises(ValueError, match="3 values have 2 groups"):
        bootstrap_interval([1, 2, 3], groups=["a", "b"])
    with pytest.raises(ValueError, match="2 values cannot be paired with 3"):
        paired_difference([1, 2], [1, 2, 3])
