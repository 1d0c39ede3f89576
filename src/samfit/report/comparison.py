"""The report of a comparison: results as JSON, tables, curves and one page, made from what runs left."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from samfit.files import remove, write_json, write_text
from samfit.metrics import METRICS
from samfit.metrics.protocols import PROTOCOLS

_MIB = 2**20
_LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "–": "--", "×": r"$\times$"}
)
_TO_FIRST = "minus first method"
_ENDS = (".md", ".tex", ".csv", "-published.md", "-published.tex")
"""What the name of a table has behind its protocol."""


@dataclass(frozen=True)
class Table:
    """A table of words; `rows` have a cell for each of `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(output: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json`, `tables/`, `curves/` and `report.html` into the folder that holds `runs/`."""
    from samfit.report.curves import curves_of
    from samfit.report.page import page_of

    write_json(output / "results.json", results)
    tables = {}
    for protocol in results["protocols"]:
        table = table_of(results, protocol)
        tables[f"{protocol}.md"], tables[f"{protocol}.tex"] = markdown(table), latex(table)
        tables[f"{protocol}.csv"] = all_figures(results, protocol)
        if printed := published_of(results, protocol):
            tables[f"{protocol}-published.md"] = markdown(printed)
            tables[f"{protocol}-published.tex"] = latex(printed)
    for name, text in tables.items():
        write_text(output / "tables" / name, text)
    for protocol, end in product(PROTOCOLS, _ENDS):  # those of an earlier recipe
        if f"{protocol}{end}" not in tables:
            remove(output / "tables" / f"{protocol}{end}")
    curves = curves_of(results)
    for name, picture in curves.items():
        write_text(output / "curves" / f"{name}.svg", picture)
    write_text(output / "report.html", page_of(results, output / "runs", curves))


def table_of(results: Mapping[str, Any], protocol: str) -> Table:
    """Return what people compare, by one protocol: its scores, their differences, and what they cost.

    Differences are of the protocol's first metric.
    """
    metrics = _metrics(results, protocol)
    first = METRICS[metrics[0]].title
    columns = [
        f"protocol {protocol}",
        "prompt",
        *(f"{METRICS[name].title} (95 % interval)" for name in metrics),
        f"{first} over seeds",
        f"{first} {_TO_FIRST}",
        f"{first} minus base model",
        "trained parameters",
        "peak MiB",
        "seconds",
    ]
    return Table(columns, [_cells(row, protocol, metrics) for row in results["rows"]])


def short_table_of(results: Mapping[str, Any], protocol: str) -> Table:
    """Return what a terminal has room for: the first metric and its difference to the first method."""
    whole = table_of(results, protocol)
    chosen = [0, 1, 2, next(place for place, name in enumerate(whole.columns) if name.endswith(_TO_FIRST))]
    return Table([whole.columns[one] for one in chosen], [[row[one] for one in chosen] for row in whole.rows])


def published_of(results: Mapping[str, Any], protocol: str) -> Table | None:
    """Return what sources printed that is scored by a protocol, as the recipe says; None if nothing was."""
    rows = [
        row
        for row in results["recipe"].get("about", {"published": ()})["published"]
        if row["protocol"] == protocol
    ]
    return published_table(rows, protocol) if rows else None


def published_table(rows: Sequence[Mapping[str, Any]], protocol: str) -> Table:
    """Return a table of published figures; `rows` have the fields of `samfit.recipes.about.Published`."""
    metrics = PROTOCOLS[protocol].metrics
    columns = [
        f"published, not measured here; protocol {protocol}",
        *(METRICS[name].title for name in metrics),
        "memory as printed, MB",
        "machine, batch",
        "remark",
        "source",
    ]
    return Table(columns, [_published_cells(row, metrics) for row in rows])


def _published_cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    memory = "–" if row["memory_mb"] is None else f"{row['memory_mb']}"
    remarks = [f'"{row["claim"]}"' if row["claim"] else "", row["remark"] or ""]
    return [
        row["model"],
        *(f"{row['figures'][name]:g}" if name in row["figures"] else "–" for name in metrics),
        memory if row["memory_measured"] else f"{memory} (not a measurement)",
        row["setup"],
        "; ".join(filter(None, remarks)) or "–",
        row["source"],
    ]


def _metrics(results: Mapping[str, Any], protocol: str) -> list[str]:
    """Return the metrics of a protocol as they were scored, or its own if everything failed."""
    found = (row["protocols"][protocol]["metrics"] for row in results["rows"] if protocol in row["protocols"])
    return list(next(found, PROTOCOLS[protocol].metrics))


def _cells(row: Mapping[str, Any], protocol: str, metrics: Sequence[str]) -> list[str]:
    cost = [
        "–" if row["trained_parameters"] is None else f"{row['trained_parameters']}",
        "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / _MIB:.0f}",
        "–" if row["seconds"] is None else f"{row['seconds']:.1f}",
    ]
    if protocol not in row["protocols"]:
        return [row["label"], "–", *("failed" for _ in metrics), "–", "–", "–", *cost]
    scored = row["protocols"][protocol]
    first = scored["metrics"][metrics[0]]
    prompt = f"{scored['prompt']} (truth)" if scored["prompt_from_truth"] else scored["prompt"]
    label = f"{row['label']} ({len(row['errors'])} failed)" if row["errors"] else row["label"]
    return [
        label,
        prompt,
        *(_with_interval(scored["metrics"][name]) for name in metrics),
        _spread(first["over_seeds"]),
        _difference(first["to_first"], row),
        _difference(first["to_base"], row),
        *cost,
    ]


def _in_csv(difference: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if difference is None else {**difference, "seeds": " ".join(map(str, difference["seeds"]))}


def _with_interval(score: Mapping[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['mean']:.4f}"
    return f"{score['mean']:.4f} ({score['low']:.4f} to {score['high']:.4f})"


def _spread(spread: Mapping[str, Any]) -> str:
    if spread["deviation"] is None:
        return "one seed"
    return f"± {spread['deviation']:.4f} ({spread['seeds']} seeds)"


def _difference(difference: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    if difference is None:
        return "–"
    seeds = difference["seeds"]
    fewer = f"; only of seed {', '.join(map(str, seeds))}" if len(seeds) < len(row["runs"]) else ""
    if difference["low"] is None:
        return f"{difference['mean']:+.4f}: {difference['verdict']}{fewer}"
    ends = f"{difference['low']:+.4f} to {difference['high']:+.4f}"
    return f"{difference['mean']:+.4f} ({ends}): {difference['verdict']}{fewer}"


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def latex(table: Table) -> str:
    """Return a table as LaTeX, with the rules of the package booktabs."""
    lines = [
        " & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in (table.columns, *table.rows)
    ]
    columns = "l" * len(table.columns)
    head, *rest = lines
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rest]
    return "\n".join([*body, r"\bottomrule", r"\end{tabular}", ""])


def all_figures(results: Mapping[str, Any], protocol: str) -> str:
    """Return CSV with one line a row and metric, with every figure in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    score, difference = ("mean", "low", "high"), ("mean", "low", "high", "verdict", "seeds")
    told = ("kind", "backbone", "image_size", "method")
    cost = ("trained_parameters", "peak_bytes", "seconds")
    writer.writerow(
        [
            *(
                "protocol",
                "row",
                *told,
                "prompt",
                "prompt_from_truth",
                "metric",
                *score,
                "deviation",
                "seeds",
            ),
            *(f"to_first_{name}" for name in difference),
            *(f"to_base_{name}" for name in difference),
            *cost,
        ]
    )
    for row in results["rows"]:
        scored = row["protocols"].get(protocol)
        for name, metric in scored["metrics"].items() if scored else ():
            asked = scored["prompt"], int(scored["prompt_from_truth"])
            spread = metric["over_seeds"]
            beside = [_in_csv(metric[one]) for one in ("to_first", "to_base")]
            writer.writerow(
                [
                    *(protocol, row["name"], *(row[one] for one in told), *asked, name),
                    *(metric[end] for end in score),
                    *(spread["deviation"], spread["seeds"]),
                    *(one.get(end) for one in beside for end in difference),
                    *(row[one] for one in cost),
                ]
            )
    return text.getvalue()
