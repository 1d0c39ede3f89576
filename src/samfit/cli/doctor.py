"""`samfit doctor`: every fault of a data set at once, and what its masks were read as."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_json, print_table
from samfit.settings import DataSettings, resolved

if TYPE_CHECKING:
    from samfit.data.inspect import Inspection
    from samfit.data.sources import Fault

_USERS_MISTAKE = 2
_SIZES_SHOWN = 5


@click.command("doctor", cls=SettingsCommand, settings=DataSettings)
@click.option("--json", "as_json", cls=Option, is_flag=True, help="print what was found as JSON")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> None:
    """Read a whole data set and list everything that is wrong with it.

    Ends with status 2 if there is an error: a fault that training would refuse.
    """
    settings = read_settings(DataSettings, given)
    from samfit.data.inspect import inspect
    from samfit.data.sources import find_samples
    from samfit.progress import track

    found = find_samples(
        settings.dataset, resolved(settings.data), classes=settings.classes, values=settings.mask_values
    )
    inspection = inspect(found, page=settings.page, progress=track)
    if as_json:
        print_json(inspection.to_json())
    else:
        _print_summary(inspection)
        _print_faults(inspection.faults)
    if inspection.errors:
        context.exit(_USERS_MISTAKE)


def _print_summary(inspection: "Inspection") -> None:
    sizes = [f"{size} ({count})" for size, count in inspection.sizes.items()]
    more = len(sizes) - _SIZES_SHOWN
    table = plain_table("", "")
    table.show_header = False
    table.add_row("images", _listed(f"{split} {count}" for split, count in inspection.images.items()))
    table.add_row("sizes", _listed(sizes[:_SIZES_SHOWN]) + (f" and {more} more" if more > 0 else ""))
    table.add_row("masks", inspection.reading.describe())
    table.add_row("values", _listed(f"{value} = {name}" for value, name in inspection.read_as.items()))
    for name in inspection.classes:
        share = f"{inspection.foreground_share[name]:.1%} of the area"
        table.add_row(name, f"{share}, {inspection.empty_masks[name]} masks without it")
    print_table(table)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _print_faults(faults: "tuple[Fault, ...]") -> None:
    """Print the faults, the worst kind first."""
    for level in ("error", "warning", "note"):
        messages = [fault.message for fault in faults if fault.level == level]
        if messages:
            click.echo(f"\n{len(messages)} {level}{'s' if len(messages) > 1 else ''}:")
        for message in messages:
            click.echo(f"  {message}")
    if not faults:
        click.echo("\nno faults")
