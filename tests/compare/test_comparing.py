"""A whole comparison on drawn images: what is in the report, what is reused, what a fault leaves."""

import csv
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import TEST, drawn_data, refuse, samfit, unchanged
from compare_support import grid, results_of
from engine_support import Killed, interrupted, kill
from job_support import jobs_named

from samfit.compare import comparing, work
from samfit.compare.comparing import compare
from samfit.compare.jobs import Job
from samfit.compare.results import collect
from samfit.compare.running import Ended, Place
from samfit.compare.work import one_by_one
from samfit.data.sources import find_samples
from samfit.data.splits import hold_out
from samfit.engine.training import resume
from samfit.errors import SettingError
from samfit.metrics.intervals import bootstrap_interval, paired_difference
from samfit.settings import CompareSettings

RECIPE = """
data: {data}
dataset: isic2016
backbone: sam-tiny
weights: random
image_size: 64
methods: [decoder, cad]
seeds: [0]
prompt: full-box
max_steps: 1
epochs: 1
samples_every: 100
overlays: 1
checkpointing: "off"
accelerator: cpu
protocol: [default, cad]
"""
ROWS = ["base-sam-tiny-64-full-box", "sam-tiny-64-decoder", "sam-tiny-64-cad", "mean-mask", "u-net"]


def recipe_at(folder: Path, data: Path, *changes: tuple[str, str]) -> CompareSettings:
    text = RECIPE.format(data=data)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return CompareSettings(recipe=path, output=folder / "report")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[CompareSettings, dict[str, Any], list[Job]]:
    """A finished comparison; tests may only add to it what they take away again."""
    folder = tmp_path_factory.mktemp("compare")
    settings = recipe_at(folder, drawn_data(tmp_path_factory))
    jobs: list[Job] = []

    def noting(several: Sequence[Job]) -> Iterator[Ended]:
        jobs.extend(several)
        return one_by_one(several)

    return settings, compare(settings, noting), jobs


def row_of(results: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in results["rows"] if row["name"] == name)


def per_image(output: Path, run: str, column: str, protocol: str = "default") -> list[float]:
    with (output / "runs" / run / "evaluation/per_image.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row["protocol"] == protocol]


def test_runs_and_the_three_that_keep_one_honest_are_rows(done):
    settings, results, _ = done
    assert [row["name"] for row in results["rows"]] == ROWS
    assert results == json.loads((settings.output / "results.json").read_text())
    assert [run["error"] for run in results["runs"]] == [None] * 4
    assert results["images"] == TEST
    for row in results["rows"]:
        assert list(row["protocols"]) == ["default", "cad"]
        assert row["seeds"] == [0]
    for run in ("sam-tiny-64-cad-seed0", "u-net-seed0"):
        finished = json.loads((settings.output / "runs" / run / "finished.json").read_text())
        missing = [name for name, found in finished["result"].items() if found is None]
        assert missing == (["adapter.safetensors"] if run == "u-net-seed0" else [])
    assert row_of(results, "u-net")["protocols"]["default"]["prompt"] == "none"


def test_means_and_differences_are_those_of_the_images(done):
    settings, results, _ = done
    mean = {
        (method, column): np.array(per_image(settings.output, f"sam-tiny-64-{method}-seed0", column))
        for method in ("decoder", "cad")
        for column in ("dice", "unadapted_dice")
    }
    cad = row_of(results, "sam-tiny-64-cad")["protocols"]["default"]["metrics"]["dice"]
    assert cad["mean"] == pytest.approx(mean["cad", "dice"].mean(), abs=1e-9)
    to_first = paired_difference(mean["cad", "dice"], mean["decoder", "dice"])
    assert cad["to_first"]["against"] == "sam-tiny-64-decoder"
    assert (cad["to_first"]["mean"], cad["to_first"]["verdict"]) == (to_first.mean, to_first.verdict)
    to_base = paired_difference(mean["cad", "dice"], mean["cad", "unadapted_dice"])
    assert (cad["to_base"]["mean"], cad["to_base"]["low"]) == (to_base.mean, to_base.low)
    base = row_of(results, ROWS[0])["protocols"]["default"]["metrics"]["dice"]
    assert base["mean"] == pytest.approx(mean["decoder", "unadapted_dice"].mean(), abs=1e-9)
    assert base["to_base"] is None
    assert (
        row_of(results, "sam-tiny-64-decoder")["protocols"]["default"]["metrics"]["dice"]["to_first"] is None
    )


def test_intervals_are_over_groups_of_images_where_these_are_known(done):
    _, results, jobs = done
    groups = ["anna", "anna", "ben", "carl", "dora", "emil", "fay"]
    grouped = collect({}, jobs, {}, len(groups), groups)
    assert "over groups of images" in grouped["intervals"]
    assert "over images" in results["intervals"]
    (run,) = (job.folder for job in jobs if job.kind == "mean-mask")
    values = per_image(run.parents[1], run.name, "dice")
    metric = row_of(grouped, "mean-mask")["protocols"]["default"]["metrics"]["dice"]
    assert (metric["low"], metric["high"]) == astuple(bootstrap_interval(values, groups=groups))[1:]
    assert metric["low"] < metric["mean"] < metric["high"]


def test_the_u_net_has_the_budget_and_the_mean_mask_scores_what_it_must(done):
    _, results, _ = done
    runs = {run["name"]: run for run in results["runs"]}
    assert runs["u-net-seed0"]["steps"] == runs["sam-tiny-64-cad-seed0"]["steps"] == 1
    assert runs["u-net-seed0"]["trained_parameters"] > 100_000
    assert row_of(results, "mean-mask")["protocols"]["default"]["metrics"]["dice"]["mean"] > 0.3
    assert runs["mean-mask"]["per_epoch"] == []
    for name in ("u-net-seed0", "sam-tiny-64-cad-seed0"):
        [epoch] = runs[name]["per_epoch"]
        assert (epoch["epoch"], epoch["protocol"]) == (1, "default")


def test_what_is_not_as_a_protocol_has_it_is_said_with_the_rows_it_is_true_of(done):
    settings, results, _ = done
    told = {row["name"]: row["protocols"]["cad"]["departures"] for row in results["rows"]}
    fit = "the run has --fit pad, published results of this protocol --fit squeeze"
    assert told["u-net"] == ["no prompt is used", fit]
    assert told["mean-mask"] == ["no prompt is used"]
    assert told["sam-tiny-64-cad"] == [fit]
    page = (settings.output / "report.html").read_text()
    assert page.count("published results of this protocol --fit squeeze") == 1
    assert "But: no prompt is used <small>(mean training mask; U-Net from scratch, 64 px)" in page


def test_every_table_names_its_protocol_and_has_every_row(done):
    settings, results, _ = done
    for protocol in ("default", "cad"):
        tables = settings.output / "tables"
        lines = (tables / f"{protocol}.md").read_text().splitlines()
        assert lines[0].startswith(f"| protocol {protocol} | prompt |")
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) == 2 + len(ROWS)
        latex = (tables / f"{protocol}.tex").read_text()
        assert latex.count(r"\\") == 1 + len(ROWS)
        assert r"95 \% interval" in latex
        with (tables / f"{protocol}.csv").open(newline="") as file:
            figures = list(csv.DictReader(file))
        assert {row["protocol"] for row in figures} == {protocol}
        assert [row["row"] for row in figures if row["metric"] == "iou"] == ROWS
        mean = row_of(results, "sam-tiny-64-cad")["protocols"][protocol]["metrics"]["iou"]["mean"]
        assert (
            float(next(r for r in figures if r["row"] == "sam-tiny-64-cad" and r["metric"] == "iou")["mean"])
            == mean
        )


def test_the_page_holds_everything_itself(done):
    settings, _, _ = done
    page = (settings.output / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {address.partition(",")[0] for address in addresses if not address.startswith("#")} == {
        "data:image/jpeg;base64"
    }
    assert "@import" not in page
    assert page.count("<svg") == 3
    assert 'name="viewport"' in page
    assert page.count("All images") == 2
    # Of each test image itself, truth and a picture a row; three examples a row with three or five panels.
    assert page.count("<img") == TEST * (2 + len(ROWS)) + 3 * (3 + 2 * 5 + 2 * 4)
    for row in ("decoder on sam-tiny, 64 px", "mean training mask", "U-Net from scratch, 64 px"):
        assert row in page


def test_finished_runs_are_used_again_and_the_report_is_the_same(done):
    settings, results, _ = done
    before = (settings.output / "report.html").read_bytes()
    asked: list[str] = []

    def nothing(jobs: Sequence[Job]) -> Iterator[Ended]:
        asked.extend(job.name for job in jobs)
        return iter(())

    assert compare(settings, nothing) == results
    assert asked == []
    assert (settings.output / "report.html").read_bytes() == before


def test_only_what_is_new_in_a_recipe_is_done(done, tmp_path):
    settings, _, _ = done
    asked: list[str] = []

    def fail(jobs: Sequence[Job]) -> Iterator[Ended]:
        asked.extend(job.name for job in jobs)
        return (Ended(job, f"<{job.name}> ran out of memory") for job in jobs)

    text = settings.recipe.read_text()
    try:
        settings.recipe.write_text(text.replace("[0]", "[0, 2]"))
        results = compare(settings, fail)
    finally:
        settings.recipe.write_text(text)
    new = [f"sam-tiny-64-{method}-seed2" for method in ("decoder", "cad")]
    assert asked == [*new, "u-net-seed2"]
    errors = {run["name"]: run["error"] for run in results["runs"]}
    assert errors["sam-tiny-64-cad-seed2"] == "<sam-tiny-64-cad-seed2> ran out of memory"
    assert row_of(results, "sam-tiny-64-cad")["seeds"] == [0]
    assert row_of(results, "sam-tiny-64-cad")["errors"] == [f"{new[1]}: {errors[new[1]]}"]
    page = (settings.output / "report.html").read_text()
    assert "&lt;sam-tiny-64-cad-seed2&gt; ran out of memory" in page
    assert "(1 failed)" in (settings.output / "tables/default.md").read_text()


def test_a_report_in_which_everything_failed_is_written_all_the_same(tmp_path, tmp_path_factory):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    settings = recipe_at(tmp_path, drawn_data(tmp_path_factory), ("weights: random", f"weights: {weights}"))
    named: list[Any] = []

    def fail(jobs: Sequence[Job]) -> Iterator[Ended]:
        named.extend(job.named_files for job in jobs)
        return (Ended(job, "out of memory") for job in jobs)

    results = compare(settings, fail)
    assert named == [(hashlib.sha256(b"weights").hexdigest(), None)] * 4
    assert results["images"] == TEST
    assert all(run["error"] == "out of memory" for run in results["runs"])
    assert "| failed |" in (settings.output / "tables/default.md").read_text()
    assert "out of memory" in (settings.output / "report.html").read_text()


def test_an_interrupted_run_goes_on_to_the_same_result(done, tmp_path, tmp_path_factory, monkeypatch):
    whole, _, _ = done
    settings = recipe_at(tmp_path, drawn_data(tmp_path_factory), ("[decoder, cad]", "[decoder]"))
    name = "sam-tiny-64-decoder-seed0"
    with pytest.raises(Killed), interrupted(3, kill):
        compare(settings, one_by_one)
    run = settings.output / "runs" / name
    assert (run / "last.ckpt").is_file()
    assert not (run / "summary.json").exists()
    resumed: list[Path] = []
    monkeypatch.setattr(work, "resume", lambda path: (resumed.append(path), resume(path)))
    compare(settings, one_by_one)
    assert resumed == [run]
    same = whole.output / "runs" / name
    assert (run / "adapter.safetensors").read_bytes() == (same / "adapter.safetensors").read_bytes()


def test_a_faulty_recipe_or_data_without_test_images_writes_nothing(tmp_path, tmp_path_factory):
    settings = recipe_at(tmp_path, drawn_data(tmp_path_factory), ("epochs", "epoch"))
    with unchanged(settings.output):
        assert "did you mean 'epochs'" in refuse("compare", settings.recipe, "--output", settings.output)
    data = tmp_path / "data"
    shutil.copytree(drawn_data(tmp_path_factory), data, ignore=shutil.ignore_patterns("*_Test_*"))
    settings = recipe_at(tmp_path, data)
    with unchanged(settings.output):
        said = refuse("compare", settings.recipe, "--output", settings.output)
    assert f"{data}: a comparison needs test images, and the data set has train images alone; give it" in said


def test_copies_that_the_runs_train_and_validate_with_are_said_once(tmp_path, tmp_path_factory, caplog):
    data = tmp_path / "data"
    shutil.copytree(drawn_data(tmp_path_factory), data)
    samples = find_samples("isic2016", data).samples
    training, validation = hold_out(samples, 0.15, 0)
    shutil.copy(training[0].image, validation[0].image)
    settings = recipe_at(tmp_path, data)
    with caplog.at_level(logging.WARNING, "samfit"):
        compare(settings, lambda jobs: (Ended(job, "not done") for job in jobs))
    copies = [record.getMessage() for record in caplog.records if "same picture" in record.getMessage()]
    assert len(copies) == 1
    assert "in train and in validation" in copies[0]


@pytest.mark.parametrize(("failed", "status"), [([], 0), (["sam-tiny-cad-seed0"], 1)])
def test_a_command_whose_runs_did_not_all_succeed_ends_with_status_1_after_its_table(
    tmp_path, monkeypatch, failed, status
):
    results = results_of(grid(tmp_path), failed)
    monkeypatch.setattr(comparing, "compare", lambda _: results)
    answer = samfit("compare", tmp_path / "recipe.yaml", "--output", tmp_path / "report")
    assert (answer.status, answer.err) == (status, "")
    assert "decoder on sam-tiny, 64 px" in answer.out
    said = [line for line in answer.out.splitlines() if line.startswith("failed: ")]
    assert said == [f"failed: {name}: out of memory" for name in failed]
    assert answer.out.splitlines()[-1].startswith("report  ")


@pytest.mark.parametrize(
    ("flags", "on_cpu", "places"),
    [
        ({}, False, ["0", "1"]),
        ({"jobs": 3}, False, ["0", "1", "0"]),
        ({}, True, [None]),
        ({"jobs": 2}, True, [None, None]),
        ({"cluster": "local", "jobs": 3}, False, ["0", "1", "0"]),
        ({"cluster": "slurm"}, False, [None] * 7),
        ({"cluster": "slurm", "jobs": 2}, False, [None, None]),
    ],
)
def test_as_many_runs_at_the_same_time_as_there_are_devices_or_as_are_asked_for(
    monkeypatch, flags, on_cpu, places
):
    seen: list[Place] = []

    def note(jobs: Sequence[Job], places: Sequence[Place], *_: Any) -> Iterator[Ended]:
        seen.extend(places)
        return (Ended(job, None) for job in jobs)

    monkeypatch.setattr(comparing, "devices", lambda: [{"CUDA_VISIBLE_DEVICES": name} for name in "01"])
    monkeypatch.setattr(comparing, "run_here", note)
    monkeypatch.setattr(comparing, "run_on_cluster", note)
    settings = CompareSettings(recipe=Path("recipe.yaml"), output=Path("report"), **flags)
    jobs = jobs_named(Path("runs"), *"abcdefg")
    assert [ended.job for ended in comparing._engine(settings, on_cpu)(jobs)] == jobs
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in seen] == places


@pytest.mark.parametrize(
    ("package", "extra"), [("matplotlib", "report"), ("jinja2", "report"), ("monai", "metrics")]
)
def test_packages_of_the_report_and_of_the_u_net_are_asked_for_before_anything_is_done(
    tmp_path, monkeypatch, package, extra
):
    settings = recipe_at(tmp_path, tmp_path / "nowhere")
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None if name == package else name)
    said = rf"not installed: {package}; pip install '.\[{extra}\]' in samfit's folder"
    with pytest.raises(SettingError, match=said):
        compare(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("beside", "kinds"), [("[u-net, mean-mask]", ["mean-mask", "u-net"]), ("[mean-mask]", ["mean-mask"])]
)
def test_a_recipe_says_what_stands_beside_its_runs_and_the_u_net_alone_needs_monai(
    tmp_path, tmp_path_factory, monkeypatch, beside, kinds
):
    settings = recipe_at(
        tmp_path, drawn_data(tmp_path_factory), ("seeds: [0]", f"seeds: [0]\nbeside: {beside}")
    )
    if "u-net" not in kinds:
        monkeypatch.setattr("samfit.packages.find_spec", lambda name: None if name == "monai" else name)
    asked: list[Job] = []

    def noting(jobs: Sequence[Job]) -> Iterator[Ended]:
        asked.extend(jobs)
        return (Ended(job, "not done") for job in jobs)

    compare(settings, noting)
    assert [job.kind for job in asked] == ["run", "run", *kinds]
