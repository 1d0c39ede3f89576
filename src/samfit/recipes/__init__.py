"""The recipes that samfit brings: experiments of papers, as YAML files beside this module. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from samfit.config import read_config
from samfit.recipes.about import About, check_about

PLURALS: Mapping[str, str] = MappingProxyType(
    {"backbones": "backbone", "image_sizes": "image_size", "methods": "method", "seeds": "seed"}
)
"""Keys that hold lists, and the setting that takes one value of the list in each run."""


@dataclass(frozen=True)
class RecipeRow:
    """One recipe."""

    name: str
    summary: str
    path: str
    """Its file, to be copied and changed."""
    about: About
    settings: dict[str, Any]
    """Every other key of the file."""

    def traits(self) -> dict[str, str]:
        """Return what it runs and needs in words."""
        run = {
            single: _listed(self.settings.get(key, self.settings.get(single)))
            for key, single in PLURALS.items()
        }
        return {
            "runs": f"{run['method']} on {run['backbone']} at {run['image_size']} px",
            "layout": str(self.settings["dataset"]),
            "data": self.about.data,
            "protocol": _listed(self.settings["protocol"]),
            "source": self.about.source,
        }


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows() -> dict[str, RecipeRow]:
    rows = {}
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        settings = read_config(path)
        about, faults = check_about(settings.pop("about", None))
        if about is None:
            raise ValueError(f"{path}: {faults}")
        rows[path.stem] = RecipeRow(path.stem, about.summary, str(path), about, settings)
    return rows


RECIPES: Mapping[str, RecipeRow] = MappingProxyType(_rows())
"""Every recipe that samfit brings, by the name of its file."""
