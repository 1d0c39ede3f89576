"""Make the tables of the docs from the result files, between the marks that name them.

python benchmarks/tables.py          write them
python benchmarks/tables.py --check  end with status 1 if a page is not what the results say
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import STEPS, Case

from samfit.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "training" / "MODEL_CARD.md")


def methods_table(results: Path) -> str:
    """Return one table a data set: Dice, IoU, trained parameters and time of each method."""
    by_set: dict[str, dict[str, Any]] = {}
    for path in sorted((results / "methods").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        by_set.setdefault(result["set"], {})[result["method"]] = result
    times = json.loads((results / "step_times.json").read_text(encoding="utf-8"))["cpu_seconds"]
    return "\n\n".join(_one_set(name, of_method, times) for name, of_method in by_set.items())


def _one_set(name: str, of_method: Mapping[str, Any], times: Mapping[str, float]) -> str:
    ordered = [of_method[method] for method in METHODS if method in of_method]
    first = ordered[0]["runs"][0]
    classes = list(first["per_class_dice"])
    shown = classes if len(classes) > 1 else []
    heads = [
        "method",
        "Dice",
        *(f"Dice, {label}" for label in shown),
        "IoU",
        "trained parameters",
        "CPU s a step",
    ]
    rows = [
        [
            f"`{result['method']}`",
            _spread(result["runs"], lambda run: run["dice"]),
            *(
                _spread(result["runs"], lambda run, label=label: run["per_class_dice"][label])
                for label in shown
            ),
            _spread(result["runs"], lambda run: run["iou"]),
            f"{result['runs'][0]['trained_parameters']:,}",
            f"{times[result['method']]:.3f}",
        ]
        for result in ordered
    ]
    images = ", ".join(f"{count} {split}" for split, count in first["images"].items())
    seeds = ", ".join(str(run["seed"]) for run in ordered[0]["runs"])
    unadapted = statistics.mean(run["unadapted_dice"] for run in ordered[0]["runs"])
    words = f"{name} ({images} images; seeds {seeds}; unadapted Dice {unadapted:.3f}):"
    return f"{words}\n\n{_table(heads, rows)}"


def _spread(runs: Sequence[Any], value: Callable[[Any], float]) -> str:
    """Return mean ± standard deviation over the seeds."""
    values = [value(run) for run in runs]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def step_table(results: Path) -> str:
    """Return what a step of each method takes at batch 1 in float32, and the published code in brackets."""
    heads = [
        "backbone",
        "method",
        "size",
        "saved, MB",
        "live after forward, MB",
        "peak, MB",
        "AdamW's state, MB",
    ]
    rows = _rows(results / "memory.json")
    lines = []
    for case in STEPS:
        if case.name in rows:
            row = rows[case.name]
            figures = [_beside(row, key) for key in ("saved_mb", "live_after_forward_mb", "peak_mb")]
            lines.append([*_who(row), *figures, f"{row['adamw_state_mb']:.0f}"])
    return _table(heads, lines)


def _who(row: Mapping[str, Any]) -> list[str]:
    return [row["backbone"], f"`{row['method']}`" if row["method"] else "alone", f"{row['size']} px"]


def _beside(row: Mapping[str, Any], key: str) -> str:
    """Return a figure with the published one and how many times that is."""
    published = row.get("published", {}).get(key)
    if published is None:
        return f"{row[key]:.0f}"
    return f"{row[key]:.0f} [{published:.0f}, {published / row[key]:.1f} ×]"


def bf16_table(results: Path) -> str:
    """Return the peak of each step in bf16, and its share of the one in float32."""
    rows = _rows(results / "memory.json")
    lines = []
    for case in STEPS:
        exact, half = rows.get(case.name), rows.get(replace(case, precision="bf16").name)
        if exact and half:
            share = f"{half['peak_mb'] / exact['peak_mb']:.2f}"
            weights = f"{half['weights_mb']:.0f} [{exact['weights_mb']:.0f}]"
            lines.append([*_who(half), weights, f"{half['peak_mb']:.0f} [{exact['peak_mb']:.0f}]", share])
    return _table(["backbone", "method", "size", "weights, MB", "peak, MB", "share of float32's peak"], lines)


def batch_table(results: Path) -> str:
    """Return the peaks of larger batches and of several classes beside those of one image and one class."""
    rows = _rows(results / "memory.json")
    lines = []
    for row in rows.values():
        if row.get("batch", 1) > 1 or row.get("classes", 1) > 1:
            one = rows[Case(row["backbone"], row["method"], row["size"]).name]
            what = f"{row['batch']} images" if row["batch"] > 1 else f"{row['classes']} classes"
            times = f"{row['peak_mb'] / one['peak_mb']:.2f} ×"
            lines.append([*_who(row), what, f"{row['peak_mb']:.0f}", times])
    return _table(["backbone", "method", "size", "with", "peak, MB", "of one image and one class"], lines)


def resident_table(results: Path) -> str:
    """Return what whole commands hold at most."""
    lines = [
        [name, f"{row['resident_mb']:,.0f}"]
        for name, row in _rows(results / "memory.json").items()
        if name.startswith("samfit ")
    ]
    return _table(["command", "resident, MB"], sorted(lines, key=_by_number))


def _by_number(line: Sequence[str]) -> list[Any]:
    """Sort `10 images` before `1000 images`."""
    return [int(word) if word.isdecimal() else word for word in line[0].split()]


def speed_table(results: Path) -> str:
    """Return the ratios of CPU time, with the range over the rounds."""
    lines = []
    for name, row in _rows(results / "speed.json").items():
        low, high = row["cpu_ratio_from_to"]
        lines.append([name, f"{row['cpu_ratio']:.2f}", f"{low:.2f} to {high:.2f}", str(row["rounds"])])
    return _table(["what", "ratio of time", "over the rounds", "rounds"], lines)


def tiny_training_table(results: Path) -> str:
    """Return what the weights of sam-tiny cost."""
    training = _tiny(results)["training"]
    plan = training["plan"]
    lines = [
        ["steps", f"{training['steps']:,} of {plan['steps']:,}"],
        ["scenes", f"{training['scenes']:,}, {plan['images']} a step"],
        ["prompts", f"{training['prompts']:,}, {plan['prompts']} a scene"],
        ["learning rate", f"{plan['rate']:g} at most (AdamW: {plan['rate'] * plan['other_rate']:g})"],
        ["seed", str(plan["seed"])],
        ["time", f"{training['cpu_hours']:.1f} hours of one core; no GPU"],
        ["processor", training["processor"]],
        ["versions", ", ".join(f"{name} {version}" for name, version in training["versions"].items())],
    ]
    return _table(["what", "how much"], lines)


def tiny_protocol(results: Path) -> str:
    """Return in words how the weights of sam-tiny were scored."""
    scores = _tiny(results)
    return f"{scores['protocol']}. In brackets the same with random weights."


def tiny_scenes_table(results: Path) -> str:
    """Return the Dice of sam-tiny on held-out scenes, by kind of mask."""
    by_kind = _tiny(results)["held_out"]["by_kind"]
    lines = [[kind, *_answers(answers)] for kind, answers in by_kind.items()]
    return _table(["masks of", "masks", *_TINY_ANSWERS.values()], lines)


def tiny_sets_table(results: Path) -> str:
    """Return the Dice of sam-tiny on each class of each data set."""
    lines = [
        [name, label, *_answers(answers)]
        for name, by_class in _tiny(results)["sets"].items()
        for label, answers in by_class.items()
    ]
    return _table(["data set", "class", "masks", *_TINY_ANSWERS.values()], lines)


_TINY_ANSWERS = {"box": "box", "click": "click", "click_single": "click, single answer"}


def _tiny(results: Path) -> dict[str, Any]:
    return json.loads((results / "sam_tiny.json").read_text(encoding="utf-8"))


def _answers(answers: Mapping[str, Any]) -> list[str]:
    """Return the number of masks and, for each answer, its Dice with the one of random weights."""
    cells = [
        f"{answers[name]['trained']:.3f} [{answers[name]['random']:.3f}]" if name in answers else "–"
        for name in _TINY_ANSWERS
    ]
    return [str(answers["box"]["masks"]), *cells]


def _rows(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["name"]: row for row in rows}


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join([_row(heads), _row(["---"] * len(heads)), *map(_row, lines)])


TABLES: Mapping[str, Callable[[Path], str]] = {
    "methods": methods_table,
    "step-memory": step_table,
    "bf16-memory": bf16_table,
    "batch-memory": batch_table,
    "resident-memory": resident_table,
    "speed": speed_table,
    "sam-tiny-training": tiny_training_table,
    "sam-tiny-protocol": tiny_protocol,
    "sam-tiny-scenes": tiny_scenes_table,
    "sam-tiny-sets": tiny_sets_table,
}
"""Name in the mark `<!-- table: name -->` to what makes the table."""


def render(page: str, results: Path = RESULTS) -> str:
    """Return a page with what stands between each mark and its `<!-- end -->` made anew."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{TABLES[match[2]](results)}\n\n{match[3]}"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", made, page, flags=re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    """Write or check every page of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--show", nargs="+", choices=TABLES, default=[], help="tables to print, too")
    given = parser.parse_args(arguments)
    check = given.check
    stale = []
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        made = render(page)
        if made != page:
            stale.append(path.name)
            if not check:
                path.write_text(made, encoding="utf-8")
    for name in given.show:
        print(TABLES[name](RESULTS), end="\n\n")
    print(f"{'not as the results say' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
