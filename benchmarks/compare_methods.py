"""Train and score one method on one data set with several seeds, and write what came out as JSON.

    python benchmarks/compare_methods.py --method cad --name ph2 --data DIR --dataset isic2016

The result goes to benchmarks/results/methods/NAME-METHOD.json; `python benchmarks/tables.py` makes the
tables of the docs from all of them. Needs no weights and no GPU: the backbone is sam-tiny with random
weights, so the figures compare methods on a small scale and say nothing about published weights.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from samfit import EvaluateSettings, TrainSettings, evaluate, train
from samfit.files import write_json
from samfit.methods import METHODS
from samfit.runs import RunFolder, versions

RESULTS = Path(__file__).parent / "results" / "methods"
HOW = (
    "sam-tiny with random weights, the defaults of method and backbone but for the prompt, which is the "
    "whole image as a box for every method; the epoch with the best Dice on the validation images (15 % of "
    "the training images, by seed) is scored once on the test images"
)


def main(arguments: list[str] | None = None) -> None:
    """Run every seed that the result does not hold yet, and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", required=True, choices=METHODS)
    parser.add_argument("--name", required=True, help="short name of the data set, for file and table")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--dataset", default="folder", help="layout of the data set")
    parser.add_argument("--classes", help="classes, comma-separated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="fewer than the default, to try this script out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    runs = []
    for seed in given.seeds:
        runs.append(_run(given, seed))
        write_json(given.results / f"{given.name}-{given.method}.json", _result(given, runs))


def _run(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train and score once."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        chosen: dict[str, Any] = {"epochs": given.epochs} if given.epochs else {}
        if given.classes:
            chosen["classes"] = tuple(given.classes.split(","))
        settings = TrainSettings(
            data=given.data,
            dataset=given.dataset,
            output=run.path,
            backbone="sam-tiny",
            weights="random",
            method=given.method,
            prompt="full-box",
            seed=seed,
            accelerator="cpu",
            **chosen,
        )
        trained = json.loads((train(settings) / "summary.json").read_text(encoding="utf-8"))
        scored = evaluate(EvaluateSettings(run=run.path, accelerator="cpu", overlays=0))
    return {
        "seed": seed,
        "protocol": scored["protocol"],
        "prompt": scored["prompt"],
        "dice": scored["metrics"]["dice"]["mean"],
        "iou": scored["metrics"]["iou"]["mean"],
        "unadapted_dice": scored["unadapted"]["metrics"]["dice"]["mean"],
        "per_class_dice": {name: one["dice"]["mean"] for name, one in scored["per_class"].items()},
        "images": {**trained["images"], "test": scored["images"]},
        "epochs": trained["epochs"],
        "trained_parameters": trained["trained_parameters"],
        "seconds": trained["seconds"],
    }


def _result(given: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "set": given.name,
        "method": given.method,
        "how": HOW,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": given.threads},
        "versions": versions(),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
