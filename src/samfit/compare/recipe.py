"""A recipe: flags of `train` and `evaluate` in a YAML file, some of them lists that span a grid. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from samfit.compare.jobs import Kind
from samfit.config import check, read_config
from samfit.declare import written
from samfit.defaults import as_in_run, resolve, tables
from samfit.errors import SettingError, nearest, unknown_name
from samfit.methods import METHODS, owners
from samfit.metrics.protocols import protocol_of
from samfit.recipes import PLURALS, RECIPES
from samfit.recipes.about import check_about
from samfit.settings import EvaluateSettings, TrainSettings

_NOT_HERE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("output",), "each run has a folder of its own; leave it out"),
        **dict.fromkeys(("devices", "nodes", "strategy"), "each run has one device; leave it out"),
        "split": "test images are compared, the same ones for every seed; leave it out",
    }
)
"""Settings of `train` and `evaluate` that a recipe cannot have, and why."""
_OF_EVALUATION = ("protocol", "surface", "spacing", "tolerance", "overlays")
_OF_BOTH = ("accelerator", "attention")
BESIDE: tuple[Kind, ...] = ("mean-mask", "u-net")
"""What may stand beside the runs, and does unless the recipe's `beside` says otherwise."""
KEYS = (
    "about",
    "beside",
    *PLURALS,
    *(field for field in TrainSettings.model_fields if field not in _NOT_HERE),
    *_OF_EVALUATION,
)
"""Every key that a recipe may have."""


@dataclass(frozen=True)
class Cell:
    """One combination of the grid."""

    name: str
    """Names its run folder."""
    settings: TrainSettings
    """Resolved; `output` is the run folder."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and found right."""

    values: dict[str, Any]
    """What the file says, as plain values; `data` is the folder that is used, `about` has every field."""
    cells: tuple[Cell, ...]
    """The first has the first of each list; seeds change fastest, then methods."""
    evaluation: dict[str, Any]
    """What the file says of the evaluation, by field."""
    beside: tuple[Kind, ...]
    """What is scored beside the runs."""

    def evaluation_of(self, run: Path) -> EvaluateSettings:
        """Return how a run is scored."""
        return EvaluateSettings(run=run, **self.evaluation)


def read_recipe(path: Path, runs: Path, data: Path | None = None) -> Recipe:
    """Read a recipe.

    `path`: its file, or the name of one in `RECIPES`. `runs`: the folder that the run folders will lie in.
    `data`: folder of the data set; it goes before what the file says.

    Raises one `SettingError` that lists every fault of the file and of every combination.
    """
    path = _file_of(path)
    values = read_config(path, "RECIPE")
    if data is not None:
        values["data"] = str(data)
    faults: dict[tuple[str, str], str] = {}

    def blame(key: str, value: Any, reason: str) -> None:
        shown = "" if value is None else f" {written(value)}"
        faults.setdefault((key, reason), f"{key}{shown} (in {path}): {reason}")

    for key in values:
        if key in _NOT_HERE:
            blame(key, None, _NOT_HERE[key])
        elif key not in KEYS:
            blame(key, None, f"there is no such setting{nearest(key, KEYS)}")
    known = {key: value for key, value in values.items() if key in KEYS}
    about, wrong_about = None, []
    if "about" in known:
        about, wrong_about = check_about(known.pop("about"))
    for reason in wrong_about:
        blame("about", None, reason)
    beside = known.pop("beside", list(BESIDE))
    if not isinstance(beside, list) or not all(name in BESIDE for name in beside):
        blame("beside", beside, f"expected a list with any of {', '.join(BESIDE)}, or [] for neither")
    lists = {}
    for key, single in PLURALS.items():
        value = known.pop(key, None)
        if key not in values:
            continue
        if single in known:
            blame(key, value, f"{single} is given too; take one of them")
        elif not isinstance(value, list) or not value:
            blame(key, value, "expected a list, as [first, second]")
        elif len(set(map(str, value))) < len(value):
            blame(key, value, "a value is there twice")
        else:
            lists[key] = value
    if "data" not in known:
        origin = "" if about is None else f": {about.data}"
        blame("data", None, f"is needed here or as --data: folder of the data set{origin}")
    for key, value in known.items():
        methods = lists.get("methods", [known.get("method", _default("method"))])
        if owners(key) and not any(str(method) in owners(key) for method in methods):
            blame(key, value, f"only {', '.join(owners(key))} has it, and the recipe has no such method")

    evaluation = {key: known.pop(key) for key in _OF_EVALUATION if key in known}
    evaluation |= {key: known[key] for key in _OF_BOTH if key in known}
    scored, wrong = check(EvaluateSettings, evaluation | {"run": runs}, tables())
    for key, reason in wrong.items():
        blame(key, evaluation.get(key), reason)

    cells = []
    for chosen in _combinations(lists):
        given = known | {PLURALS[key]: value for key, value in chosen.items()}
        method = str(given.get("method", _default("method")))
        of_others = {key for key in known if owners(key) and method not in owners(key) and method in METHODS}
        own = {key: value for key, value in given.items() if key not in of_others}
        name = "-".join(str(given[one]) for one in ("backbone", "image_size", "method") if one in given)
        name = "-".join(filter(None, [name, f"seed{given.get('seed', _default('seed'))}"]))
        settings, wrong = check(TrainSettings, own | {"output": runs / name}, tables())
        for key, reason in wrong.items():
            plural = next((several for several, one in PLURALS.items() if one == key), key)
            if key in own:
                blame(plural if plural in lists else key, own[key], reason)
        if settings is None:
            continue
        try:
            settings = resolve(settings)
            for protocol in scored.protocol if scored is not None else ():
                as_in_run(EvaluateSettings(run=runs, **evaluation), settings, protocol_of(protocol))
        except SettingError as error:
            for fault in error.faults:
                faults.setdefault((name, fault), f"{name} (in {path}): {fault}")
        cells.append(Cell(name, settings))
    if faults:
        raise SettingError(faults.values())
    values |= {} if about is None else {"about": asdict(about)}
    return Recipe(values, tuple(cells), evaluation, tuple(name for name in BESIDE if name in beside))


def _default(field: str) -> Any:
    return TrainSettings.model_fields[field].default


def _file_of(recipe: Path) -> Path:
    """Return the file of a recipe that is given by its name, and any other path as it is."""
    if str(recipe) in RECIPES:
        return Path(RECIPES[str(recipe)].path)
    if not recipe.suffix and not recipe.exists():
        unknown = unknown_name("recipe", str(recipe), RECIPES)
        raise SettingError(f"RECIPE: {unknown}; one of your own is a file that ends in .yaml")
    return recipe


def _combinations(lists: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield one value of each list; `lists` is in the order of `PLURALS`, the later ones change faster."""
    for chosen in product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))
