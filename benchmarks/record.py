"""Result files of memory.py and speed.py: rows, each with the commit that it was measured at."""

import json
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
    """A result file whose rows can be measured one by one; those of another machine are dropped."""

    def __init__(self, path: Path, head: Mapping[str, Any], device: str):
        self.path = path
        self.head = {**head, "device": device_words(device), "versions": versions()}
        self.rows: dict[str, Any] = {}
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            rows = old.pop("rows")
            if old == self.head:
                self.rows = {row.pop("name"): row for row in rows}

    def keep(self, name: str, row: Mapping[str, Any]) -> None:
        """Write a row, with what is known of it beside."""
        beside = {
            "published": REFERENCE["published"]["rows"].get(name),
            "at_most": REFERENCE["at_most"].get(name),
        }
        self.rows[name] = {**row, **{key: value for key, value in beside.items() if value}, **commit()}
        rows = [{"name": name, **row} for name, row in sorted(self.rows.items())]
        write_json(self.path, {**self.head, "rows": rows})


def commit() -> dict[str, Any]:
    """Return the commit of the source, and whether it was changed since."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(
        [*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False
    )
    return {"commit": head.stdout.strip(), "changed_since": bool(changes.stdout)}


def device_words(device: str) -> str:
    """Return what is measured on, in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"CPU ({capability}), {torch.get_num_threads()} threads"
