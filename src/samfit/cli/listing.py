"""`samfit list`: what there is to choose from. Loads no torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import click

from samfit.backbones import BACKBONES
from samfit.cli.options import SettingOption
from samfit.cli.output import plain_table, print_json, print_table, with_lines
from samfit.data.sources import SOURCES
from samfit.declare import expected
from samfit.errors import SettingError, unknown_name
from samfit.losses import LOSSES
from samfit.methods import METHODS, trained_parameters
from samfit.methods.row import MethodRow
from samfit.metrics import METRICS
from samfit.metrics.protocols import PROTOCOLS, Protocol
from samfit.recipes import RECIPES, RecipeRow

TABLES: Mapping[str, Mapping[str, Any]] = {
    "backbones": BACKBONES,
    "methods": METHODS,
    "datasets": SOURCES,
    "losses": LOSSES,
    "metrics": METRICS,
    "protocols": PROTOCOLS,
    "recipes": RECIPES,
}
"""What `samfit list` is asked for, to the table that it shows."""
_COLUMNS: Mapping[str, Mapping[str, Callable[[Any], str]]] = {
    "backbones": {
        "image size": lambda card: str(card.image_size),
        "weights": lambda card: card.weights.licence,
        "paper": lambda card: card.paper,
    },
    "methods": {},
    "datasets": {},
    "losses": {"paper": lambda row: row.paper},
    "metrics": {"best": lambda row: row.best, "paper": lambda row: row.paper},
    "protocols": {"source": lambda row: row.source},
    "recipes": {},
}
"""What is shown beside the name and the summary."""


@click.command("list")
@click.argument(
    "what",
    metavar="|".join(TABLES),
    shell_complete=lambda ctx, parameter, incomplete: [
        name for name in TABLES if name.startswith(incomplete)
    ],
)
@click.option("--json", "as_json", is_flag=True, help="print every trait as JSON")
def command(what: str, as_json: bool) -> None:
    """Show the backbones, methods, datasets, losses, metrics, protocols or recipes that there are."""
    if what not in TABLES:
        raise SettingError(unknown_name("list", what, TABLES))
    rows = TABLES[what].values()
    if as_json:
        print_json([_plain(row) for row in rows])
        return
    columns = _COLUMNS[what]
    table = plain_table("name", "summary", *columns)
    for row in rows:
        below = _below(row)
        table.add_row(row.name, with_lines(row.summary, below), *(cell(row) for cell in columns.values()))
    print_table(table)


def _below(row: Any) -> list[tuple[str, str]]:
    """Return what is shown below the summary of a row."""
    if isinstance(row, MethodRow):
        return _traits(row)
    if isinstance(row, Protocol | RecipeRow):
        return list(row.traits().items())
    return []


def _traits(row: MethodRow) -> list[tuple[str, str]]:
    """Return what is shown below the summary of a method, each with what it is called."""
    parameters = trained_parameters(row.name).items()
    return [
        ("trains", f"{' and '.join(part.replace('_', ' ') for part in row.trains)} of the backbone"),
        ("gradient", _crossed(row.gradient_from)),
        (
            "parameters",
            f"trained: {', '.join(f'{count / 1e6:.2f} M on {name}' for name, count in parameters)}",
        ),
        ("paper", row.paper),
        *(
            (f"{option.opts[0]} {option.metavar or ''}", f"{option.help} {option.notes()}")
            for option in _options(row)
        ),
    ]


def _crossed(gradient_from: int | None) -> str:
    """Say what of the encoder a gradient crosses."""
    if gradient_from is None:
        return "does not reach the encoder"
    return "crosses the whole encoder" if gradient_from < 0 else "crosses every block of the encoder"


def _plain(row: Any) -> dict[str, Any]:
    """Return the traits of a row that are values; what a row does is for Python only."""
    values = {trait: value for trait, value in asdict(row).items() if not callable(value)}
    return values | (_more(row) if isinstance(row, MethodRow) else {})


def _more(row: MethodRow) -> dict[str, Any]:
    """Return what is printed as JSON of a method beside its traits."""
    return {
        "options": [
            {
                "name": option.field,
                "flag": option.opts[0],
                "help": option.help,
                "values": expected(row.options, option.field),
                "default": row.options.model_fields[option.field].default,
            }
            for option in _options(row)
        ],
        "trained_parameters": trained_parameters(row.name),
    }


def _options(row: MethodRow) -> list[SettingOption]:
    """Return the flags of a method's options."""
    return [SettingOption(row.options, field) for field in row.options.model_fields]
