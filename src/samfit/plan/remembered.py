"""Estimates that were traced before: those that samfit comes with, and those of this machine.

A trace takes a second to ten. What it gives depends on nothing but the setup, samfit's code and torch.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from samfit.backbones.download import cache_folder
from samfit.errors import StorageError
from samfit.files import write_json
from samfit.plan.setup import Estimate, Setup

TRACED = Path(__file__).with_name("traced.json")
"""Estimates of every backbone and method on a GPU; written by benchmarks/trace_plan.py."""
_CODE = ("backbones", "losses", "methods", "plan", "step.py", "frame.py")
"""Parts of samfit that an estimate depends on."""
_LIBRARIES = ("torch", "transformers", "peft")
"""Libraries whose modules a step runs."""


def training(setup: Setup) -> Estimate:
    """Return what a training step takes, from the second on."""
    return _estimate("training", setup)


def prediction(setup: Setup) -> Estimate:
    """Return what it takes to segment `setup.batch_size` images at once."""
    return _estimate("prediction", replace(setup, checkpointing=False, cached=False))


def key_of(kind: str, setup: Setup) -> str:
    """Return the name under which an estimate is kept."""
    return " ".join([kind, *map(str, asdict(setup).values())])


def _estimate(kind: str, setup: Setup) -> Estimate:
    key, estimates = key_of(kind, setup), known()
    if key not in estimates:
        estimates[key] = _trace(kind, setup)
        _keep({key: estimates[key]})
    return estimates[key]


def _trace(kind: str, setup: Setup) -> Estimate:
    from samfit.plan import tracing  # with all of torch, which what is known does not need

    trace: Callable[[Setup], Estimate] = getattr(tracing, f"trace_{kind}")
    return trace(setup)


@cache
def known() -> dict[str, Estimate]:
    """Return what is known, by `key_of`; the dictionary is this process's memory."""
    return _read(TRACED) | _read(own_file())


def _keep(new: Mapping[str, Estimate]) -> None:
    """Add to what this machine keeps; where that cannot be done, the next command traces again."""
    with contextlib.suppress(StorageError):
        write_json(own_file(), in_words(_read(own_file()) | dict(new)))


def in_words(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return estimates as plain values, with the release of torch whose operations were counted."""
    return {
        "torch": torch_release(),
        "estimates": {key: list(asdict(estimate).values()) for key, estimate in estimates.items()},
    }


def _read(path: Path) -> dict[str, Estimate]:
    """Return the estimates in a file that are for this torch; nothing if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["torch"] != torch_release():
            return {}
        return {key: Estimate(*parts) for key, parts in content["estimates"].items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def torch_release() -> str:
    """Return torch's version without its build: `2.13.0`."""
    return version("torch").partition("+")[0]


@cache
def own_file() -> Path:
    """Return where this machine keeps its estimates; other code, or releases of libraries, have another."""
    digest = hashlib.sha256("".join(map(version, _LIBRARIES)).encode())
    source = Path(__file__).parents[1]
    for part in _CODE:
        files = sorted((source / part).rglob("*.py")) or [source / part]
        for file in files:
            digest.update(file.read_bytes())
    return cache_folder() / f"plan-{digest.hexdigest()[:16]}.json"
