"""`demo`: draw a small data set, adapt sam-tiny to it, and show the scores before and after."""

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from samfit.data.drawn import draw_lesions
from samfit.engine.evaluation import evaluate
from samfit.engine.training import train
from samfit.errors import RunError
from samfit.runs import require_folder
from samfit.settings import EvaluateSettings, TrainSettings

_DATA, _RUN = "data", "run"


def run_demo(output: Path, *, overwrite: bool = False) -> None:
    """Write `data/` and `run/` under `output` and print what adaptation changed.

    Two minutes at most on two cores; needs no data and no network. Raises `RunError` if `output` is a file,
    or holds anything and `overwrite` is not given; only the two folders are ever replaced.
    """
    require_folder(output)
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise RunError(
                f"--output {output} is not empty: choose another folder, or replace it with --overwrite"
            )
        for name in (_DATA, _RUN):
            shutil.rmtree(output / name, ignore_errors=True)
    data, run = output / _DATA, output / _RUN
    draw_lesions(data)
    train(
        TrainSettings(
            data=data, dataset="isic2016", backbone="sam-tiny", weights="random", method="cad", output=run
        )
    )
    summary = evaluate(EvaluateSettings(run=run))
    table = Table("", "Dice", "IoU", box=None)
    for name, metrics in (("before", summary["unadapted"]["metrics"]), ("after", summary["metrics"])):
        table.add_row(name, f"{metrics['dice']['mean']:.3f}", f"{metrics['iou']['mean']:.3f}")
    print(f"\nsam-tiny on drawn lesions that it has not seen (protocol {summary['protocol']}):")
    Console(file=sys.stdout).print(table)
    print(f"\nLook at {run / 'samples'} and {run / 'evaluation' / 'overlays'}.")
    print("The same with your own images: samfit train --data DIR --dataset folder --output RUN")
