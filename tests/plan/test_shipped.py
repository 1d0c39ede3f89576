"""What samfit comes with: estimates of every backbone and method, so that `samfit plan` answers at once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cases
import memory

from samfit.backbones import BACKBONES
from samfit.config import parse
from samfit.defaults import tables
from samfit.methods import METHODS
from samfit.plan import remembered
from samfit.plan.choice import largest_batch
from samfit.plan.setup import Device, Setup
from samfit.plan.tables import lines
from samfit.plan.tracing import trace_training
from samfit.settings import PlanSettings

MENDED_BY = "run benchmarks/trace_plan.py"


def first_setup(backbone: str, method: str) -> Setup:
    """Return the setup that a training has by default."""
    return lines(parse(PlanSettings, {"backbone": backbone, "method": method}, tables()))[0].setup


def check(backbone: str, method: str) -> None:
    setup = first_setup(backbone, method)
    traced, shipped = trace_training(setup).peak, remembered.training(setup).peak
    assert traced == pytest.approx(shipped, rel=0.02), MENDED_BY


@pytest.mark.parametrize("method", METHODS)
def test_what_samfit_comes_with_is_what_a_trace_gives(method: str):
    check("sam-tiny", method)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "method"),
    [("sam-vit-b", method) for method in METHODS]
    + [(backbone, "medical-adapter") for backbone in BACKBONES if backbone not in ("sam-tiny", "sam-vit-b")],
)
def test_what_samfit_comes_with_is_what_a_trace_gives_at_full_size(backbone: str, method: str):
    check(backbone, method)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "checkpointing"), [("decoder", False), ("cad", True)])
def test_the_largest_batch_that_is_planned_fits_and_is_nearly_the_largest(method: str, checkpointing: bool):
    budget = 2500 * 10**6
    setup = replace(first_setup("sam-vit-b", method), checkpointing=checkpointing)
    largest = largest_batch(setup, budget)
    assert largest > 8  # the largest that is looked up
    assert trace_training(replace(setup, batch_size=largest)).peak <= 1.01 * budget
    assert trace_training(replace(setup, batch_size=int(1.15 * largest) + 1)).peak > budget


def test_eight_gibibytes_are_enough_for_every_method_on_every_backbone(tmp_path: Path):
    code = (
        "import sys; from samfit.cli import main; status = main(['plan', '--vram', '8GiB', '--json']); "
        "sys.exit('torch was loaded, to trace what is not known' if 'torch' in sys.modules else status)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"SAMFIT_CACHE": str(tmp_path)},
    )
    assert answer.returncode == 0, answer.stderr + MENDED_BY
    found = json.loads(answer.stdout)
    assert len(found) == len(BACKBONES) * len(METHODS)
    assert [line["setup"] for line in found if not line["largest_batch"]] == []


def measured() -> list[ParameterSet]:
    """Return every step whose memory was measured and committed, on a CPU or a GPU."""
    results = {"cpu": memory.RESULT, "gpu": memory.GPU_RESULT}
    return [
        pytest.param(device, case, row["peak_mb"], id=f"{device}: {row['name']}")
        for device, result in results.items()
        for case, row in memory.measured(result).items()
        if case.is_of_a_run
    ]


@pytest.mark.parametrize(("device", "case", "peak"), measured())
def test_what_is_planned_is_within_a_tenth_of_what_was_measured(
    device: Device, case: cases.Case, peak: float
):
    setup = cases.planned(case, device)
    assert remembered.key_of("training", setup) in remembered.known(), MENDED_BY
    assert remembered.training(setup).step / 1e6 == pytest.approx(peak, rel=0.1)
