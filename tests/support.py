"""Where tests find numbers of the published code and real images."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _find(variable: str, places: list[Path], name: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        path = Path(chosen) / name
        assert path.exists(), f"{variable} is set, but {path} is missing"
        return path
    for place in places:
        if (place / name).exists():
            return place / name
    pytest.skip(f"{name} is not in {' or '.join(map(str, places))}; set {variable}")


def golden(name: str) -> Path:
    """Return a golden file: from SAMFIT_GOLDEN, else beside the checkout, else the copy in the repository."""
    return _find("SAMFIT_GOLDEN", [ROOT / "../shared/golden", ROOT / "tests/golden"], name)


def real_data(name: str) -> Path:
    """Return a folder of real images: from SAMFIT_DATA, else beside the checkout."""
    return _find("SAMFIT_DATA", [ROOT / "../shared/data"], name)
