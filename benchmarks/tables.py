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
from pathlib import Path
from typing import Any

from samfit.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


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
    return "\n".join(
        [
            f"{name} ({images} images; seeds {seeds}; unadapted Dice {unadapted:.3f}):",
            "",
            _row(heads),
            _row(["---"] * len(heads)),
            *map(_row, rows),
        ]
    )


def _spread(runs: Sequence[Any], value: Callable[[Any], float]) -> str:
    """Return mean ± standard deviation over the seeds."""
    values = [value(run) for run in runs]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: Mapping[str, Callable[[Path], str]] = {"methods": methods_table}
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
    check = parser.parse_args(arguments).check
    stale = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        page = path.read_text(encoding="utf-8")
        made = render(page)
        if made != page:
            stale.append(path.name)
            if not check:
                path.write_text(made, encoding="utf-8")
    print(f"{'not as the results say' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
