"""Adapt sam-tiny from its trained and from random weights to data sets, and compare the two, image by image.

    python training/adapt_sam_tiny.py --weights FILE --output DIR \\
        --set ph2 isic2016 DIR --set wbc1 folder DIR cytoplasm=128,nucleus=255

Every set is a comparison of its own for each start, below --output, whose pages may be looked at; what is
finished is not done again. The result goes to benchmarks/results/sam_tiny_adapted.json; `python
benchmarks/tables.py` makes the model card's table from it.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_sam_tiny import parse_with_sets, values_of
from machine import machine
from numpy.typing import NDArray

from samfit.backbones import load_backbone
from samfit.compare.comparing import compare
from samfit.config import write_config
from samfit.files import write_json
from samfit.metrics.intervals import paired_difference, spread_over_seeds
from samfit.runs import versions
from samfit.settings import CompareSettings

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "sam_tiny_adapted.json"
METHODS, SEEDS = ("decoder", "cad"), (0, 1, 2)
PROTOCOL = (
    "sam-tiny trained for {epochs} epochs (default 30) from each start, else by the defaults of method and "
    "backbone (prompt: the whole image); the epoch with the best Dice on the validation images (15 % of the "
    "training images, by seed) is scored once on the test images; Dice, mean over classes and images and "
    "over {seeds} seeds with the deviation over seeds; the difference is paired by image, of each image's "
    "mean over seeds, with its 95 % interval"
)


def main(arguments: list[str] | None = None) -> None:
    """Do every comparison that is not done, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", required=True, type=Path, help="of sam-tiny, as they are published")
    parser.add_argument("--output", required=True, type=Path, help="folder of the comparisons")
    parser.add_argument("--starts", nargs="+", choices=("random", "trained"), default=["random", "trained"])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--epochs", type=int, default=10, help="of each training  [default: 10]")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parse_with_sets(parser, arguments)
    sets: dict[str, Any] = {}
    for start in given.starts:
        weights = given.weights if start == "trained" else start
        for name, layout, folder, *classes in given.sets:
            recipe = {
                "data": folder,
                "dataset": layout,
                "backbone": "sam-tiny",
                "weights": str(weights),
                "methods": list(METHODS),
                "seeds": list(SEEDS),
                "epochs": given.epochs,
                "accelerator": "cpu",
                "overlays": 0,
                "beside": [],
            } | ({"mask_values": values_of(classes)} if classes else {})
            output = given.output / f"{name}-{start}"
            write_config(output / "recipe.yaml", recipe)
            settings = CompareSettings(recipe=output / "recipe.yaml", output=output, jobs=given.jobs)
            sets.setdefault(name, {})[start] = compare(settings)
    if len(given.starts) < 2:
        return
    write_json(
        given.result,
        {
            "protocol": PROTOCOL.format(epochs=given.epochs, seeds=len(SEEDS)),
            "epochs": given.epochs,
            "weights_hash": load_backbone("sam-tiny", weights=given.weights).weights_hash,
            "versions": versions(),
            "machine": machine(),
            "sets": {name: compared(of_starts) for name, of_starts in sets.items()},
        },
    )


def compared(of_starts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each method the Dice from both starts and the difference of trained minus random.

    `of_starts`: start to what its `results.json` holds.
    """
    result: dict[str, Any] = {"images": of_starts["trained"]["images"]}
    for method in METHODS:
        scores = {start: _scores(results, method) for start, results in of_starts.items()}
        means = {start: np.mean(of_seeds, axis=0) for start, of_seeds in scores.items()}
        result[method] = {
            start: asdict(spread_over_seeds([float(one.mean()) for one in of_seeds]))
            for start, of_seeds in scores.items()
        } | {"difference": asdict(paired_difference(means["trained"], means["random"]))}
    return result


def _scores(results: Mapping[str, Any], method: str) -> Sequence[NDArray[np.float64]]:
    """Return the Dice of each image, one array a seed. Raises `ValueError` if a run has failed."""
    (row,) = (one for one in results["rows"] if one["method"] == method)
    if row["errors"]:
        raise ValueError(f"{row['name']} has failed: {'; '.join(row['errors'])}")
    runs = {run["name"]: run for run in results["runs"]}
    return [np.array(list(runs[name]["per_image"]["adapted"].values())) for name in row["runs"]]


if __name__ == "__main__":
    main()
