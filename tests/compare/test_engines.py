"""One recipe with real processes: on this machine, in queues of two, and killed and called again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import drawn_data
from engine_support import MEASURED, run_samfit
from slurm_support import slurm_in

pytestmark = pytest.mark.slow

RECIPE = """
data: {data}
dataset: isic2016
backbone: sam-tiny
weights: random
image_size: 64
methods: [decoder, lora]
prompt: box
epochs: 1
batch_size: 2
checkpoint_every: 1
samples_every: 100
overlays: 0
checkpointing: "off"
accelerator: cpu
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "recipe.yaml"
    path.write_text(RECIPE.format(data=drawn_data(tmp_path_factory)))
    return path


@pytest.fixture(scope="module")
def report(recipe) -> Path:
    """The report that the default engine makes of the recipe without being disturbed."""
    return compared(recipe, recipe.with_name("report"))


def compared(recipe: Path, output: Path, *flags: str) -> Path:
    answer = run_samfit("compare", str(recipe), "--output", str(output), *flags, timeout=280)
    assert answer.returncode == 0, answer.stderr
    return output


def told(report: Path) -> dict[str, Any]:
    """Return what `results.json` holds, without what was measured: seconds and peaks of memory."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in MEASURED}
        return [without(one) for one in value] if isinstance(value, list) else value

    results = json.loads((report / "results.json").read_text())
    assert all(run["error"] is None for run in results["runs"])
    return without(results)


def without(report: Path, copy: Path, *runs: str) -> Path:
    """Copy a report without some of its runs; return the copy."""
    shutil.copytree(report, copy, ignore=shutil.ignore_patterns(*runs))
    return copy


def finished_files(report: Path) -> dict[Path, tuple[int, bytes]]:
    """Return time and content of every file of the runs that are finished."""
    runs = [file.parent for file in report.glob("runs/*/finished.json")]
    files = [file for run in runs for file in run.rglob("*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_local_queue_of_two_workers_gives_the_same_results(recipe, report, tmp_path):
    other = compared(recipe, tmp_path / "report", "--cluster", "local", "--jobs", "2")
    assert told(other) == told(report)
    assert sorted(path.name for path in other.iterdir()) == sorted(path.name for path in report.iterdir())


def test_the_queue_of_slurm_goes_on_with_a_report_to_the_same_results(recipe, report, tmp_path, monkeypatch):
    queue, environment = slurm_in(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    other = without(report, tmp_path / "report", "sam-tiny-64-lora-seed0", "u-net-seed0")
    compared(recipe, other, "--cluster", "slurm", "--jobs", "2", "--slurm", "time=60")
    assert told(other) == told(report)
    assert len(list(queue.glob("*.sh"))) == 2


def test_a_comparison_that_was_killed_loses_no_finished_run(recipe, report, tmp_path):
    output = without(report, tmp_path / "report", "sam-tiny-64-decoder-seed0", "sam-tiny-64-lora-seed0")
    command = [sys.executable, "-m", "samfit", "compare", str(recipe), "--output", str(output)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    second = output / "runs/sam-tiny-64-lora-seed0/last.ckpt"
    while not second.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished_files(output)
    assert output / "runs/sam-tiny-64-decoder-seed0/finished.json" in before
    compared(recipe, output)
    assert {file: now for file, now in finished_files(output).items() if file in before} == before
    assert told(output) == told(report)
