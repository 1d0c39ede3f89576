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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lean_tables
import tiny_tables
from rows import table

from samfit.methods import METHODS
from samfit.recipes import RECIPES
from samfit.report.comparison import published_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "training" / "MODEL_CARD.md")


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
    [taken] = {(run["protocol"], run["prompt"]) for result in ordered for run in result["runs"]}
    classes = list(first["per_class_dice"])
    shown = classes if len(classes) > 1 else []
    heads = [
        f"protocol {taken[0]}, prompt {taken[1]}",
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
    return f"{words}\n\n{table(heads, rows)}"


def _spread(runs: Sequence[Any], value: Callable[[Any], float]) -> str:
    """Return mean ± standard deviation over the seeds."""
    values = [value(run) for run in runs]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def recipes_table(_: Path) -> str:
    """Return what each recipe runs and needs."""
    lines = []
    for row in RECIPES.values():
        traits = row.traits()
        layout = f"[`{traits['layout']}`](data.md#{traits['layout']})"
        lines.append([f"`{row.name}`", traits["runs"], layout, traits["protocol"], traits["source"]])
    return table(["recipe", "runs", "layout", "protocols", "source"], lines)


def recipe_data_table(_: Path) -> str:
    """Return where the data set of each layout comes from, and which folder of it is asked for."""
    data = {
        str(row.settings["dataset"]): row.about.data.replace("--data", "`--data`") for row in RECIPES.values()
    }
    return table(["layout", "data set"], [[f"`{layout}`", words] for layout, words in data.items()])


def recipe_settings_table(_: Path) -> str:
    """Return every setting of each recipe, recipes with the same ones together."""
    of: dict[str, list[str]] = {}
    for row in RECIPES.values():
        words = ", ".join(f"`{key}: {_as_in_file(value)}`" for key, value in row.settings.items())
        of.setdefault(words, []).append(f"`{row.name}`")
    return table(["recipe", "settings"], [[", ".join(names), words] for words, names in of.items()])


def _as_in_file(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def published_tables(_: Path) -> str:
    """Return what sources printed, one table for each protocol."""
    by_protocol: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for row in RECIPES.values():
        for printed in row.about.published:
            by_protocol.setdefault(printed.protocol, []).append((row.name, asdict(printed)))
    tables = []
    for protocol, printed in by_protocol.items():
        shown = published_table([one for _, one in printed], protocol)
        lines = [[f"`{name}`", *cells] for (name, _), cells in zip(printed, shown.rows, strict=True)]
        tables.append(table(["recipe", *shown.columns], lines))
    return "\n\n".join(tables)


def recipe_departures_table(_: Path) -> str:
    """Return what is done otherwise than at the source, or is not known of it, and in which recipes."""
    of: dict[str, list[str]] = {}
    for row in RECIPES.values():
        for departure in row.about.departures:
            of.setdefault(departure, []).append(f"`{row.name}`")
    return table(
        ["otherwise, or not known", "in"], [[words, ", ".join(names)] for words, names in of.items()]
    )


TABLES: Mapping[str, Callable[[Path], str]] = {
    "methods": methods_table,
    **lean_tables.TABLES,
    **tiny_tables.TABLES,
    "recipes": recipes_table,
    "recipe-data": recipe_data_table,
    "recipe-settings": recipe_settings_table,
    "recipe-figures": published_tables,
    "recipe-departures": recipe_departures_table,
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
