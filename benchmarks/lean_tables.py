"""The tables of what steps and commands take, of memory.py's and speed.py's result files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import STEPS, Case
from record import REFERENCE
from rows import measured_on, rows_of, table
from techniques import TECHNIQUES

from samfit.methods import METHODS

_AS_MEASURED = ("saved_mb", "live_after_forward_mb", "peak_mb")


def machine(results: Path) -> str:
    """Return where everything was measured, and with what."""
    return measured_on(json.loads((results / "memory.json").read_text(encoding="utf-8")))


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
    rows = _rows(results)
    lines = [
        [*_who(row), *(_beside(row, key) for key in _AS_MEASURED), f"{row['adamw_state_mb']:.0f}"]
        for row in (rows[case.name] for case in STEPS if case.name in rows)
    ]
    return table(heads, lines)


def peak_table(results: Path) -> str:
    """Return the peak of a step beside that of the published code, and where this was measured."""
    rows = _rows(results)
    compared = [rows[case.name] for case in STEPS if case.name in rows and case.method]
    lines = [
        [
            row["backbone"],
            f"`{row['method']}`",
            f"{row['peak_mb']:,.0f} MB",
            f"{row['published']['peak_mb']:,.0f} MB",
            f"{row['published']['peak_mb'] / row['peak_mb']:.0f} ×",
        ]
        for row in compared
        if "peak_mb" in row.get("published", {})
    ]
    heads = ["backbone", "method", "samfit", "published code", "less"]
    return f"{table(heads, lines)}\n\n{machine(results)[:-1]}; one image of 1024 px in float32."


def order_table(results: Path) -> str:
    """Return what each method takes of what `sam-adapter` takes, and a card's total, for sam-vit-b."""
    rows = _rows(results)
    cases = [Case("sam-vit-b", method, 1024) for method in METHODS]
    cases += [replace(case, cached=True) for case in cases]
    found = sorted((rows[case.name] for case in cases if case.name in rows), key=lambda row: row["peak_mb"])
    base = rows["sam-vit-b sam-adapter 1024 px"]
    all_ours, all_published = _taken(base, base), _taken(base, base["published"])
    lines = []
    for row in found:
        ours = _taken(row, row)
        cells = [f"{own / of:.2f}" for own, of in zip(ours, all_ours, strict=True)] + [f"{ours[-1]:,.0f}"]
        if "published" in row:
            theirs = _taken(row, row["published"])
            shares = [f"{own / of:.2f}" for own, of in zip(theirs, all_published, strict=True)]
            brackets = [*shares, f"{theirs[-1]:,.0f}"]
            cells = [f"{cell} [{beside}]" for cell, beside in zip(cells, brackets, strict=True)]
        lines.append([f"`{row['method']}`" + (", embeddings at hand" if row["cached"] else ""), *cells])
    heads = ["method", "saved", "peak", "weights, state and peak", "weights, state and peak, MB"]
    return table(heads, lines)


def _taken(row: Mapping[str, Any], figures: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return what is saved, the peak, and a card's total: weights and state are the published code's too."""
    peak = figures["peak_mb"]
    return figures["saved_mb"], peak, row["weights_mb"] + row["adamw_state_mb"] + peak


def techniques_table(results: Path) -> str:
    """Return what each technique saves and costs: a step with it and, in brackets, the same without."""
    rows, times = _rows(results), _times(results)
    lines = []
    for technique in TECHNIQUES:
        names = technique.lean.name, technique.without.name
        if technique.speed in times and {*names} <= rows.keys():
            lean, without = (rows[name] for name in names)
            keys = ("weights_mb", "saved_mb", "peak_mb")
            figures = [f"{lean[key]:,.0f} [{without[key]:,.0f}]" for key in keys]
            otherwise = [word for word in technique.lean.unusual if word in technique.without.unusual]
            step = ", ".join([_where(lean), *otherwise])
            time = f"{times[technique.speed]['cpu_ratio']:.2f}"
            lines.append([technique.name, technique.acts, step, *figures, time, technique.costs])
    heads = ["technique", "when it acts", "measured with", "weights, MB", "saved, MB", "peak, MB"]
    return table([*heads, "time of a step", "costs beside time"], lines)


def _where(row: Mapping[str, Any]) -> str:
    return " ".join(_who(row)[:2]) if row["method"] else ", ".join([row["backbone"], f"{row['size']} px"])


def bf16_table(results: Path) -> str:
    """Return the peak of each step in bf16, and its share of the one in float32."""
    rows = _rows(results)
    lines = []
    for case in STEPS:
        name = replace(case, precision="bf16").name
        exact, half = rows.get(case.name), rows.get(name)
        if exact and half:
            share = f"{half['peak_mb'] / exact['peak_mb']:.2f}"
            weights = f"{half['weights_mb']:.0f} [{exact['weights_mb']:.0f}]"
            why = REFERENCE["exceptions"].get(name, {}).get("because", "")
            lines.append(
                [*_who(half), weights, f"{half['peak_mb']:.0f} [{exact['peak_mb']:.0f}]", share, why]
            )
    heads = ["backbone", "method", "size", "weights, MB", "peak, MB", "share of float32's peak"]
    return table([*heads, "why more than 0.6"], lines)


def batch_table(results: Path) -> str:
    """Return the peaks of larger batches and of several classes beside those of one image and one class."""
    rows = _rows(results)
    lines = []
    for row in rows.values():
        if row.get("batch", 1) > 1 or row.get("classes", 1) > 1:
            one = rows[Case(row["backbone"], row["method"], row["size"]).name]
            what = f"{row['batch']} images" if row["batch"] > 1 else f"{row['classes']} classes"
            figures = [f"{row[key]:.0f} [{one[key]:.0f}]" for key in ("saved_mb", "peak_mb")]
            lines.append([*_who(row), what, *figures, f"{row['peak_mb'] / one['peak_mb']:.2f} ×"])
    return table(["backbone", "method", "size", "with", "saved, MB", "peak, MB", "times the peak"], lines)


def resident_table(results: Path) -> str:
    """Return what whole commands hold at most, and the published code in brackets."""
    lines = [
        [name, _beside(row, "resident_mb")]
        for name, row in _rows(results).items()
        if name.startswith("samfit ")
    ]
    return table(["command", "resident, MB"], sorted(lines, key=_by_number))


def _by_number(line: Sequence[str]) -> list[Any]:
    """Sort `10 images` before `1000 images`."""
    return [int(word) if word.isdecimal() else word for word in line[0].split()]


def speed_table(results: Path) -> str:
    """Return the ratios of CPU time, with the range over the rounds."""
    lines = []
    for name, row in _times(results).items():
        low, high = row["cpu_ratio_from_to"]
        lines.append([name, f"{row['cpu_ratio']:.2f}", f"{low:.2f} to {high:.2f}", str(row["rounds"])])
    return table(["what", "ratio of time", "over the rounds", "rounds"], lines)


def inference_table(results: Path) -> str:
    """Return how fast an image is segmented and what that takes, beside transformers' own model."""
    row = _times(results)["inference"]
    lines = [
        ["samfit", f"{row['images_per_second']:.3f}", f"{row['peak_mb']:,.0f}"],
        ["`SamModel` of transformers", f"{1 / row['other_seconds']:.3f}", f"{row['their_peak_mb']:,.0f}"],
    ]
    return table(["sam-vit-b, one image of 1024 px, one box", "images a second", "peak, MB"], lines)


def _who(row: Mapping[str, Any]) -> list[str]:
    return [row["backbone"], f"`{row['method']}`" if row["method"] else "alone", f"{row['size']} px"]


def _beside(row: Mapping[str, Any], key: str) -> str:
    """Return a figure with the published one and how many times that is."""
    published = row.get("published", {}).get(key)
    if published is None:
        return f"{row[key]:,.0f}"
    return f"{row[key]:,.0f} [{published:,.0f}, {published / row[key]:.1f} ×]"


def _rows(results: Path) -> dict[str, Any]:
    return rows_of(results / "memory.json")


def _times(results: Path) -> dict[str, Any]:
    return rows_of(results / "speed.json")


TABLES: Mapping[str, Callable[[Path], str]] = {
    "machine": machine,
    "step-peaks": peak_table,
    "step-memory": step_table,
    "memory-order": order_table,
    "techniques": techniques_table,
    "bf16-memory": bf16_table,
    "batch-memory": batch_table,
    "resident-memory": resident_table,
    "speed": speed_table,
    "inference": inference_table,
}
"""Name in the docs' marks to what makes the table."""
