"""`samfit list`: what there is to choose from. Loads no torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import click

from samfit.backbones import BACKBONES
from samfit.cli.output import plain_table, print_json, print_table
from samfit.data.sources import SOURCES
from samfit.errors import SettingError, unknown_name
from samfit.losses import LOSSES
from samfit.methods import METHODS

_TABLES: Mapping[str, Mapping[str, Any]] = {
    "backbones": BACKBONES,
    "methods": METHODS,
    "datasets": SOURCES,
    "losses": LOSSES,
}
_COLUMNS: Mapping[str, Mapping[str, Callable[[Any], str]]] = {
    "backbones": {
        "image size": lambda card: str(card.image_size),
        "weights": lambda card: card.weights.licence if card.weights else "random only",
        "paper": lambda card: card.paper,
    },
    "methods": {
        "trains": lambda row: ", ".join(row.trains),
        "paper": lambda row: row.paper,
    },
    "datasets": {},
    "losses": {"paper": lambda row: row.paper},
}
"""What is shown beside the name and the summary."""


@click.command("list")
@click.argument("what", metavar="|".join(_TABLES))
@click.option("--json", "as_json", is_flag=True, help="print every trait as JSON")
def command(what: str, as_json: bool) -> None:
    """Show the backbones, methods, datasets or losses that there are."""
    if what not in _TABLES:
        raise SettingError(unknown_name("list", what, _TABLES))
    rows = _TABLES[what].values()
    if as_json:
        print_json([_plain(row) for row in rows])
        return
    columns = _COLUMNS[what]
    table = plain_table("name", "summary", *columns)
    for row in rows:
        table.add_row(row.name, row.summary, *(cell(row) for cell in columns.values()))
    print_table(table)


def _plain(row: Any) -> dict[str, Any]:
    """Return the traits of a row that are values; what a row does is for Python only."""
    return {trait: value for trait, value in asdict(row).items() if not callable(value)}
