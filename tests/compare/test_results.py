"""What runs left, put together: rows, means and differences, whatever has failed; no run is trained."""

import numpy as np
import pytest
from compare_support import IMAGES, adapted, grid, results_of, row_of, unadapted, write_run

from samfit.compare.results import collect
from samfit.metrics.intervals import bootstrap_interval, paired_difference

DECODER, CAD = "sam-tiny-64-decoder", "sam-tiny-64-cad"
ENDS = ("mean", "low", "high")


def dice(results, row):
    return row_of(results, row)["protocols"]["default"]["metrics"]["dice"]


def values(jobs, name, of=adapted, classes=1):
    """Return one value an image of a run."""
    return of(next(job for job in jobs if job.name == name), classes).mean(axis=1)


def test_every_backbone_has_a_base_row_and_a_first_method_of_its_own(tmp_path):
    jobs = grid(tmp_path, backbones=("sam-tiny", "efficientsam-ti"))
    results = results_of(jobs)
    assert [row["name"] for row in results["rows"]] == [
        *("base-sam-tiny-64-full-box", "base-efficientsam-ti-64-full-box"),
        *(DECODER, CAD, "efficientsam-ti-64-decoder", "efficientsam-ti-64-cad"),
        *("mean-mask", "u-net"),
    ]
    for backbone in ("sam-tiny", "efficientsam-ti"):
        base = dice(results, f"base-{backbone}-64-full-box")
        first, second = (values(jobs, f"{backbone}-{method}-seed0") for method in ("decoder", "cad"))
        of_base = values(jobs, f"{backbone}-decoder-seed0", unadapted)
        assert base["mean"] == pytest.approx(of_base.mean())
        for row, against in ((base, of_base - first), (dice(results, f"{backbone}-64-cad"), second - first)):
            assert row["to_first"]["against"] == f"{backbone}-64-decoder"
            assert row["to_first"]["mean"] == pytest.approx(against.mean())
    for name in ("mean-mask", "u-net"):
        assert dice(results, name)["to_first"]["against"] == DECODER
        assert dice(results, name)["to_base"] is None


def test_of_several_classes_a_score_is_the_mean_over_them_and_that_of_each_is_kept(tmp_path):
    jobs = grid(tmp_path)
    results = results_of(jobs, classes=("cup", "disc"))
    first, second = (values(jobs, f"sam-tiny-{method}-seed0", classes=2) for method in ("decoder", "cad"))
    assert dice(results, CAD)["mean"] == pytest.approx(second.mean())
    to_first, expected = dice(results, CAD)["to_first"], paired_difference(second, first)
    assert (to_first["against"], to_first["verdict"]) == (DECODER, expected.verdict)
    assert [to_first[end] for end in ENDS] == pytest.approx([getattr(expected, end) for end in ENDS])
    (run,) = (run for run in results["runs"] if run["name"] == "sam-tiny-cad-seed0")
    assert run["per_image"]["adapted"] == pytest.approx(dict(zip(IMAGES, second, strict=True)))
    of_classes = adapted(jobs[1], 2).mean(axis=0)
    told = [run["protocols"]["default"]["per_class"][name]["dice"]["mean"] for name in ("cup", "disc")]
    assert told == pytest.approx(list(of_classes))


def test_a_base_row_takes_each_seed_from_a_run_that_is_done(tmp_path):
    jobs = grid(tmp_path, seeds=(0, 1))
    results = results_of(jobs, failed=["sam-tiny-decoder-seed0", "sam-tiny-cad-seed1"])
    base = row_of(results, "base-sam-tiny-64-full-box")
    assert base["runs"] == ["sam-tiny-cad-seed0", "sam-tiny-decoder-seed1"]
    assert (base["seeds"], base["errors"]) == ([0, 1], [])
    expected = [values(jobs, f"sam-tiny-decoder-seed{seed}", unadapted) for seed in (0, 1)]
    assert dice(results, base["name"])["mean"] == pytest.approx(np.mean(expected))
    assert dice(results, base["name"])["over_seeds"]["seeds"] == 2


def test_a_base_row_on_which_every_run_of_a_seed_failed_says_so(tmp_path):
    results = results_of(
        grid(tmp_path, seeds=(0, 1)), failed=["sam-tiny-decoder-seed1", "sam-tiny-cad-seed1"]
    )
    base = row_of(results, "base-sam-tiny-64-full-box")
    assert base["seeds"] == [0]
    assert base["errors"] == ["sam-tiny-decoder-seed1: out of memory"]


def test_of_several_seeds_a_row_has_the_mean_and_the_spread(tmp_path):
    jobs = grid(tmp_path, seeds=(0, 1))
    results = results_of(jobs)
    of_seed = [values(jobs, f"sam-tiny-cad-seed{seed}") for seed in (0, 1)]
    cad, expected = dice(results, CAD), bootstrap_interval(np.mean(of_seed, axis=0))
    assert [cad[end] for end in ENDS] == pytest.approx([getattr(expected, end) for end in ENDS])
    assert cad["over_seeds"]["seeds"] == 2
    assert cad["over_seeds"]["deviation"] == pytest.approx(np.std(np.mean(of_seed, axis=1), ddof=1))
    assert cad["to_first"]["seeds"] == [0, 1]


def test_two_rows_are_compared_over_the_seeds_that_both_have(tmp_path):
    jobs = grid(tmp_path, seeds=(0, 1))
    results = results_of(jobs, failed=["sam-tiny-decoder-seed1"])
    to_first = dice(results, CAD)["to_first"]
    difference = values(jobs, "sam-tiny-cad-seed0") - values(jobs, "sam-tiny-decoder-seed0")
    assert to_first["seeds"] == [0]
    assert to_first["mean"] == pytest.approx(difference.mean())
    assert dice(results, CAD)["to_base"]["seeds"] == [0, 1]


def test_rows_without_a_common_seed_are_not_compared(tmp_path):
    failed = ["sam-tiny-decoder-seed1", "sam-tiny-cad-seed0"]
    assert dice(results_of(grid(tmp_path, seeds=(0, 1)), failed), CAD)["to_first"] is None


def test_the_mean_mask_is_the_same_for_every_seed(tmp_path):
    jobs = grid(tmp_path, seeds=(0, 1))
    to_first = dice(results_of(jobs), "mean-mask")["to_first"]
    first = np.mean([values(jobs, f"sam-tiny-decoder-seed{seed}") for seed in (0, 1)], axis=0)
    assert to_first["seeds"] == [0, 1]
    assert to_first["mean"] == pytest.approx((values(jobs, "mean-mask") - first).mean())


def test_versions_are_those_that_the_runs_were_made_with(tmp_path):
    jobs = grid(tmp_path)
    assert results_of(jobs, torch="1.9")["versions"] == {"torch": ["1.9"]}
    write_run(jobs[-1], torch="2.0")
    assert collect({}, jobs, {}, len(IMAGES))["versions"] == {"torch": ["1.9", "2.0"]}


def test_how_many_images_there_are_is_known_when_everything_failed(tmp_path):
    jobs = grid(tmp_path)
    assert results_of(jobs, failed=[job.name for job in jobs])["images"] == len(IMAGES)
