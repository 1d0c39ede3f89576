"""Result files of memory.py and speed.py: rows, each with the commit that it was measured at."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from samfit.files import write_json
from samfit.runs import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE: Mapping[str, Any] = json.loads(
    (ROOT / "benchmarks" / "reference.json").read_text(encoding="utf-8")
)
"""What the published code takes, and what samfit is to take at most, by the names of rows."""


class Record:
    """A result file whose rows can be measured one by one; those of another machine are dropped.

    On a CPU each row has what is known of its figures beside it: they were measured and promised there.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], device: str):
        self.path = path
        self.beside = beside if device == "cpu" else lambda *_: {}
        self.head = {**head, "device": device_words(device), "versions": versions()}
        self.rows: dict[str, Any] = {}
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            rows = old.pop("rows")
            if old == self.head:
                self.rows = {row.pop("name"): row for row in rows}

    def keep(self, name: str, row: Mapping[str, Any]) -> None:
        """Write a row with the commit, and with what is known of its figures beside."""
        self.rows[name] = {**row, **self.beside(name, row), **commit()}
        rows = [{"name": name, **row} for name, row in sorted(self.rows.items())]
        write_json(self.path, {**self.head, "rows": rows})


def beside(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published figures, and what is promised, for those that a row has."""
    known = {"published": REFERENCE["published"]["rows"], "at_most": REFERENCE["at_most"]}
    found = {
        what: {key: value for key, value in rows.get(name, {}).items() if key in row}
        for what, rows in known.items()
    }
    return {what: figures for what, figures in found.items() if figures}


def commit() -> dict[str, Any]:
    """Return the commit of the source, and whether it was changed since."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(
        [*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False
    )
    return {"commit": head.stdout.strip(), "changed_since": bool(changes.stdout)}


def device_words(device: str, threads: int | None = None) -> str:
    """Return what is measured on, in words. `threads`: of a processor; torch's own if not given."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    capability = torch.backends.cpu.get_cpu_capability()
    used = threads or torch.get_num_threads()
    return f"{names[0] if names else 'CPU'} ({capability}), {used} of {os.cpu_count()} cores"
