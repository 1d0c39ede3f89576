"""Rows of result files, and the tables that are made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def rows_of(path: Path) -> dict[str, Any]:
    """Return the rows of a result file by name."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["name"]: row for row in rows}


def measured_on(result: Mapping[str, Any]) -> str:
    """Return in words where a result was measured, and with what."""
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("samfit", "torch", "transformers"))
    return f"Measured on {result['device']}, with {versions}."


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown has it."""
    return "\n".join([_line(heads), _line(["---"] * len(heads)), *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
