"""Score what pretrain_sam_tiny.py made, beside random weights, on held-out scenes and on data sets.

    python training/evaluate_sam_tiny.py --run DIR --set ph2 isic2016 DIR \\
        --set wbc1 folder DIR cytoplasm=128,nucleus=255

`--set NAME LAYOUT DIR [CLASS=VALUE,...]` may be given several times; every image of a set is scored. The
result goes to benchmarks/results/sam_tiny.json; `python benchmarks/tables.py` makes the model card's tables
from it.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from pretrain_sam_tiny import COST, WEIGHTS
from scoring import HELD_OUT, Scores, data_scores, pooled, scene_scores

from samfit.backbones import load_backbone
from samfit.files import write_json
from samfit.runs import versions

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "sam_tiny.json"
PROTOCOL = (
    "Dice without any adaptation, at the size of each image, one prompt a mask, the mean over masks; box: "
    "the single answer to the exact box; click: a random pixel of the mask, the candidate with the highest "
    "estimated IoU; click_single: the single answer to the same click; middle: a click on the pixel farthest "
    "from the border of the mask, as SAM was scored, the candidate with the highest estimated IoU"
)


def main(arguments: list[str] | None = None) -> None:
    """Score both weights on all that is given, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="its --output")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parse_with_sets(parser, arguments)
    backbones = {
        "trained": load_backbone("sam-tiny", weights=given.run / WEIGHTS),
        "random": load_backbone("sam-tiny", weights="random"),
    }
    scenes = {name: scene_scores(backbone, given.scenes) for name, backbone in backbones.items()}
    sets = {}
    for name, layout, folder, *classes in given.sets:
        scores = {
            weights: data_scores(backbone, Path(folder), layout, values_of(classes))
            for weights, backbone in backbones.items()
        }
        sets[name] = _compared(scores)
    write_json(
        given.result,
        {
            "protocol": PROTOCOL,
            "training": json.loads((given.run / COST).read_text(encoding="utf-8")),
            "weights_hash": backbones["trained"].weights_hash,
            "versions": versions(),
            "machine": machine(),
            "held_out": {"seed": HELD_OUT, "scenes": given.scenes}
            | {
                "by_kind": _compared(_grouped(scenes, lambda family, kind: kind)),
                "by_family": _compared(_grouped(scenes, lambda family, kind: family)),
                "all": _compared(_grouped(scenes, lambda family, kind: "all"))["all"],
            },
            "sets": sets,
        },
    )


def parse_with_sets(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the arguments, with `sets` from any number of `--set NAME LAYOUT DIR [CLASS=VALUE,...]`."""
    parser.add_argument("--set", nargs="+", action="append", default=[], dest="sets", metavar="WORD")
    given = parser.parse_args(arguments)
    if any(len(words) not in (3, 4) for words in given.sets):
        parser.error("--set takes NAME LAYOUT DIR, and CLASS=VALUE,... where classes share one mask")
    return given


def values_of(words: list[str]) -> dict[str, int]:
    """Return class to grey value of `CLASS=VALUE,...`, if that is given."""
    pairs = [pair.split("=") for word in words for pair in word.split(",")]
    return {name: int(value) for name, value in pairs}


def _grouped(
    scores: Mapping[str, Mapping[tuple[str, str], Scores]], name_of: Callable[[str, str], str]
) -> dict[str, dict[str, Scores]]:
    """Return the scores on scenes of all weights, pooled under the name of their family and kind."""
    result: dict[str, dict[str, Scores]] = {}
    for weights, of_scenes in scores.items():
        members: dict[str, list[Scores]] = {}
        for group, found in of_scenes.items():
            members.setdefault(name_of(*group), []).append(found)
        result[weights] = {name: pooled(several) for name, several in members.items()}
    return result


def _compared(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """Return the number of masks and the mean Dice of all weights, by kind or class of masks and answer."""
    return {
        kind: {
            answer: {"masks": len(values)}
            | {weights: float(np.mean(by_kind[kind][answer])) for weights, by_kind in scores.items()}
            for answer, values in answers.items()
        }
        for kind, answers in scores["trained"].items()
    }


if __name__ == "__main__":
    main()
