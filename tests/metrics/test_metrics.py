"""Every metric against a second implementation, over a grid of masks and maps with the empty ones."""

import math
import subprocess
import sys

import metric_references as reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samfit.errors import SettingError
from samfit.metrics import METRICS, SURFACES, metric_function, require_metrics
from samfit.metrics.counts import Counts, ber, count, dice, iou
from samfit.metrics.maps import e_measure, s_measure, stretched, weighted_f
from samfit.metrics.surfaces import Ruler, hd95, surface_dice

EXACT = 1e-6
MASKS = arrays.arrays(bool, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6)))
PAIRS = list(reference.pairs())
MAPS = list(reference.maps())


def test_every_metric_has_a_reference():
    assert all(callable(getattr(reference, name)) for name in METRICS)
    assert {row.kind for row in METRICS.values()} == {"counts", "maps", "surfaces"}
    assert {name for name in METRICS if METRICS[name].kind == "surfaces"} == set(SURFACES)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].kind == "counts"])
def test_metrics_of_counts_equal_their_references(name):
    for case, prediction, truth in PAIRS:
        expected = getattr(reference, name)(prediction, truth)
        assert metric_function(name)(count(prediction, truth)) == pytest.approx(
            expected, rel=EXACT, abs=EXACT
        ), case


@pytest.mark.parametrize("smooth", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("name", ["dice", "iou"])
def test_smoothed_metrics_equal_their_references(name, smooth):
    for case, prediction, truth in PAIRS:
        expected = getattr(reference, name)(prediction, truth, smooth)
        assert metric_function(name)(count(prediction, truth), smooth) == pytest.approx(
            expected, abs=EXACT
        ), case


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].kind == "maps"])
def test_metrics_of_maps_equal_their_references(name):
    if METRICS[name].packages:
        pytest.importorskip("py_sod_metrics")
    for case, probability, truth in MAPS:
        expected = getattr(reference, name)(probability, truth)
        found = metric_function(name)(probability, truth)
        assert found == pytest.approx(expected, rel=EXACT, abs=EXACT), case


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_metrics_of_borders_equal_their_references(spacing):
    pytest.importorskip("monai")
    ruler = Ruler(spacing, tolerance=1.2)
    for case, prediction, truth in PAIRS:
        expected = reference.hd95(prediction, truth, spacing)
        assert hd95(prediction, truth, ruler) == pytest.approx(expected, rel=EXACT, abs=EXACT), case
        expected = reference.surface_dice(prediction, truth, spacing, 1.2)
        assert surface_dice(prediction, truth, ruler) == pytest.approx(expected, rel=EXACT, abs=EXACT), case


@given(MASKS)
def test_counts_are_those_of_sets_of_pixels(pair):
    prediction, truth = reference.pixels(pair[0]), reference.pixels(pair[1])
    counts = count(pair[0], pair[1])
    assert counts.true_positive == len(prediction & truth)
    assert counts.false_positive == len(prediction - truth)
    assert counts.false_negative == len(truth - prediction)
    assert counts.true_negative == pair[0].size - len(prediction | truth)


@pytest.mark.parametrize(
    ("prediction", "truth", "score"),
    [(False, False, 1), (True, False, 0), (False, True, 0), (True, True, 1)],
)
def test_empty_masks_score_as_stated(prediction, truth, score):
    one, other = np.full((3, 4), prediction), np.full((3, 4), truth)
    counts = count(one, other)
    assert dice(counts) == iou(counts) == 1 - ber(counts) == score
    stated = {name: METRICS[name].empty.split(", ") for name in ("dice", "iou", "surface_dice", "hd95")}
    if prediction != truth:
        for name, distance in zip(stated, ("0", "0", "0", "the diagonal of the image"), strict=True):
            assert f"{distance} if one is" in stated[name]
        assert hd95(one, other, Ruler((2.0, 1.0))) == math.hypot(6, 4)
        assert surface_dice(one, other, Ruler()) == 0
    elif not truth:
        for name, value in zip(stated, (1, 1, 1, 0), strict=True):
            assert f"{value} if both are empty" in stated[name]
        assert (hd95(one, other, Ruler()), surface_dice(one, other, Ruler())) == (0, 1)


def test_a_truth_without_foreground_gives_maps_the_scores_that_the_table_states():
    pytest.importorskip("py_sod_metrics")
    probability, nothing = np.array([[0.0, 0.2], [0.4, 1.0]]), np.zeros((2, 2), bool)
    assert s_measure(probability, nothing) == pytest.approx(1 - 0.4)
    assert weighted_f(probability, nothing) == weighted_f(np.zeros((2, 2)), nothing) == 0
    below = [
        (np.floor(probability * 255) < level).sum() / 3 for level in range(256)
    ]  # 3: H·W - 1, as published
    assert e_measure(probability, nothing) == pytest.approx(np.mean(below))


def test_an_object_in_the_last_row_has_an_s_measure():
    pytest.importorskip("py_sod_metrics")
    truth = np.zeros((6, 5), bool)
    truth[-1] = True
    assert s_measure(truth.astype(float), truth) == pytest.approx(1)
    assert math.isfinite(s_measure(np.full((6, 5), 0.3), truth))


def test_stretching_reaches_both_ends_and_keeps_a_flat_map():
    np.testing.assert_allclose(stretched(np.array([[0.2, 0.3, 0.4]], np.float32)), [[0, 0.5, 1]], atol=1e-6)
    assert (stretched(np.full((2, 2), 0.3)) == 0.3).all()
    assert stretched(np.zeros((1, 1), np.float32)).dtype == np.float64


def test_classes_are_counted_apart():
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((2, 3, 5, 7)) > 0.5
    together = count(prediction, truth)
    apart = [count(p, t) for p, t in zip(prediction, truth, strict=True)]
    for metric in (dice, iou, ber):
        np.testing.assert_array_equal(metric(together), [metric(counts) for counts in apart])


def test_a_single_score_is_a_plain_number():
    assert type(dice(Counts(1, 2, 3, 4))) is type(ber(Counts(1, 2, 3, 4))) is float


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        count(np.ones((2, 3), bool), np.ones((3, 2), bool))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    require_metrics(["dice", "mae"])
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None)
    require_metrics(["dice", "mae"])
    with pytest.raises(
        SettingError,
        match=r"^S-measure, HD95: not installed: py_sod_metrics, monai, scipy; pip install '\.\[metrics\]'",
    ):
        require_metrics(["dice", "s_measure", "hd95", "hd95"])
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None if name == "monai" else name)
    with pytest.raises(SettingError, match=r"^HD95: not installed: monai; "):
        require_metrics(["dice", "s_measure", "hd95"])


def test_metrics_load_no_torch_and_no_extra():
    heavy = ("torch", "monai", "py_sod_metrics", "scipy")
    modules = ("counts", "maps", "surfaces", "scores", "intervals", "protocols")
    code = f"import sys, {', '.join(f'samfit.metrics.{name}' for name in modules)}\n"
    code += f"assert not [name for name in {heavy} if name in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True)
