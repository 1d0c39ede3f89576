"""Trace what `samfit plan` is asked most and write it into the package, so that it answers at once.

    python benchmarks/trace_plan.py

The result goes to src/samfit/plan/traced.json: every way to make a step of every method on every backbone,
on a GPU at the backbone's image size, with one class; and on both devices the steps that memory.py measures
or has measured. Takes about a quarter of an hour on one core, and is to be run again when a change moves what
a step takes (tests/plan/test_shipped.py says so).
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import cases
import memory

from samfit.backbones import BACKBONES
from samfit.config import parse
from samfit.defaults import tables
from samfit.files import write_text
from samfit.methods import METHODS
from samfit.plan import remembered
from samfit.plan.setup import Device
from samfit.plan.tables import lines
from samfit.progress import track
from samfit.settings import PlanSettings

CARDS = ("4GiB", "8GiB", "12GiB", "24GiB")
"""Cards that are planned for; what is traced for one serves for most others."""


def main(arguments: list[str] | None = None) -> None:
    """Trace everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--result", type=Path, default=remembered.TRACED)
    given = parser.parse_args(arguments)
    pairs = [(backbone, method) for backbone in given.backbones for method in given.methods]
    measured: dict[Device, Path] = {"cpu": memory.RESULT, "gpu": memory.GPU_RESULT}
    with (
        TemporaryDirectory() as folder,
        patch.dict("os.environ", SAMFIT_CACHE=folder),
        patch.object(remembered, "TRACED", Path(folder) / "none"),
    ):
        remembered.own_file.cache_clear()
        remembered.known.cache_clear()  # nothing that was traced before counts
        for backbone, method in track(pairs, "tracing", len(pairs)):
            for vram in (None, *CARDS):
                asked = {"backbone": backbone, "method": method, "vram": vram}
                lines(parse(PlanSettings, asked, tables()))
        for device, result in measured.items():
            for case in {**dict.fromkeys(memory.steps()), **memory.measured(result)}:
                if case.is_of_a_run and (case.backbone, case.method) in pairs:
                    remembered.training(cases.planned(case, device))
        found = remembered.known()
    rows = json.dumps(remembered.in_words(found)).replace(
        "], ", "],\n"
    )  # one a line, for the eye and for git
    write_text(given.result, rows + "\n")


if __name__ == "__main__":
    main()
