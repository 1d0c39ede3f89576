"""The tables of sam-tiny's model card, of evaluate_sam_tiny.py's and adapt_sam_tiny.py's result files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rows import measured_on, table

_ANSWERS = {
    "box": "box",
    "click": "click",
    "click_single": "click, single answer",
    "middle": "click in the middle",
}
_STARTS = {"trained": "these weights", "random": "random weights"}


def training_table(results: Path) -> str:
    """Return what the weights of sam-tiny cost."""
    return table(
        ["what", "of the run"], [list(line) for line in _costs(_scores(results)["training"]).items()]
    )


def _costs(training: Mapping[str, Any]) -> dict[str, str]:
    plan = training["plan"]
    return {
        "steps": f"{training['steps']:,} of {plan['steps']:,}",
        "scenes shown": f"{training['scenes']:,}, {plan['images']} a step",
        "views of each": str(plan["views"]),
        "prompts": f"{training['prompts']:,}, {plan['prompts']} a scene",
        "learning rate": f"{plan['rate']:g} at most (AdamW: {plan['rate'] * plan['other_rate']:.2g})",
        "seed": str(plan["seed"]),
        "time": (
            f"{60 * training['cuda_hours']:.0f} minutes of the GPU"
            if "cuda_hours" in training
            else f"{training['cpu_hours']:.1f} core-hours; no GPU"
        ),
        "machine": training["machine"],
        "versions": ", ".join(f"{name} {version}" for name, version in training["versions"].items()),
    }


def protocol(results: Path) -> str:
    """Return in words how the weights of sam-tiny were scored."""
    scores = _scores(results)
    return f"{scores['protocol']}. In brackets the same with random weights."


def scenes_table(results: Path) -> str:
    """Return the Dice of sam-tiny on held-out scenes, by kind of mask."""
    return _of_scenes(results, "by_kind", "masks of")


def families_table(results: Path) -> str:
    """Return the Dice of sam-tiny on held-out scenes, by family of scenes."""
    return _of_scenes(results, "by_family", "scenes of")


def _of_scenes(results: Path, grouping: str, head: str) -> str:
    held_out = _scores(results)["held_out"]
    rows = {**held_out[grouping], "all": held_out["all"]}
    lines = [[name, *_answers(answers)] for name, answers in rows.items()]
    return table([head, "masks", *_ANSWERS.values()], lines)


def sets_table(results: Path) -> str:
    """Return the Dice of sam-tiny on each class of each data set."""
    lines = [
        [name, label, *_answers(answers)]
        for name, by_class in _scores(results)["sets"].items()
        for label, answers in by_class.items()
    ]
    return table(["data set", "class", "masks", *_ANSWERS.values()], lines)


def adapted_protocol(results: Path) -> str:
    """Return in words how the two starts were compared."""
    return f"{_adapted(results)['protocol']}."


def adapted_table(results: Path) -> str:
    """Return what methods reach from the trained and from random weights, on each data set."""
    lines = []
    for name, found in _adapted(results)["sets"].items():
        for method in ("decoder", "cad"):
            one, difference = found[method], found[method]["difference"]
            lines.append(
                [
                    name,
                    str(found["images"]),
                    f"`{method}`",
                    *(f"{one[start]['mean']:.3f} ± {one[start]['deviation']:.3f}" for start in _STARTS),
                    f"{difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})",
                    difference["verdict"],
                ]
            )
    columns = ["data set", "test images", "method", *_STARTS.values(), "difference", "verdict"]
    return table(columns, lines)


def demo_table(results: Path) -> str:
    """Return the Dice of the demo before and after, with intervals."""
    demo = json.loads((results / "demo.json").read_text(encoding="utf-8"))
    lines = []
    for row in demo["rows"]:
        dice, change = row["dice"], row["dice"]["to_base"]
        name, gained = (f"`{row['method']}`", _interval(change, "+")) if change else (row["method"], "–")
        lines.append([name, _interval(dice), gained, f"{row['trained_parameters']:,}"])
    heads = [f"{demo['images']} new images", "Dice", "minus zero-shot", "trained parameters"]
    return f"{table(heads, lines)}\n\n{measured_on(demo)}"


def _interval(found: Mapping[str, Any], sign: str = "") -> str:
    mean, low, high = (f"{found[key]:{sign}.2f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _scores(results: Path) -> dict[str, Any]:
    return json.loads((results / "sam_tiny.json").read_text(encoding="utf-8"))


def _adapted(results: Path) -> dict[str, Any]:
    return json.loads((results / "sam_tiny_adapted.json").read_text(encoding="utf-8"))


def _answers(answers: Mapping[str, Any]) -> list[str]:
    """Return the number of masks and, for each answer, its Dice with the one of random weights."""
    cells = [
        f"{answers[name]['trained']:.3f} [{answers[name]['random']:.3f}]" if name in answers else "–"
        for name in _ANSWERS
    ]
    return [str(answers["box"]["masks"]), *cells]


TABLES: Mapping[str, Callable[[Path], str]] = MappingProxyType(
    {
        "sam-tiny-training": training_table,
        "sam-tiny-protocol": protocol,
        "sam-tiny-scenes": scenes_table,
        "sam-tiny-families": families_table,
        "sam-tiny-sets": sets_table,
        "sam-tiny-adapted-protocol": adapted_protocol,
        "sam-tiny-adapted": adapted_table,
        "demo": demo_table,
    }
)
