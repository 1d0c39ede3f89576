"""`samfit doctor`: every fault of a data set at once, and what its masks were read as."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_json, print_table
from samfit.errors import DataError, SettingError
from samfit.settings import DataSettings, resolved

if TYPE_CHECKING:
    from samfit.data.inspect import Inspection
    from samfit.data.sources import Fault, Found

_USERS_MISTAKE = 2
_SIZES_SHOWN = 5


@click.command("doctor", cls=SettingsCommand, settings=DataSettings)
@click.option("--json", "as_json", cls=Option, is_flag=True, help="print what was found as JSON")
@click.option(
    "--sheet",
    cls=Option,
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    help="also draw images of each split with their masks, those with a fault first; replaces the file",
)
@click.pass_context
def command(context: click.Context, as_json: bool, sheet: Path | None, **given: Any) -> None:
    """Read a whole data set and list everything that is wrong with it.

    Ends with status 2 if there is an error: a fault that training would refuse.
    """
    settings = read_settings(DataSettings, given)
    if sheet is not None:
        _check_sheet(sheet, resolved(settings.data))
    from samfit.data.inspect import inspect
    from samfit.data.sources import find_of
    from samfit.progress import track

    found = find_of(settings)
    inspection = inspect(found, page=settings.page, progress=track)
    if not inspection.errors:
        inspection = replace(inspection, faults=(*_untrainable(found), *inspection.faults))
    if sheet is not None:
        from samfit.report.data_sheet import data_sheet
        from samfit.report.overlays import write_png

        write_png(sheet, data_sheet(found, inspection, settings.page))
    if as_json:
        print_json(inspection.to_json())
    else:
        _print_summary(inspection)
        _print_faults(inspection.faults)
    if inspection.errors:
        context.exit(_USERS_MISTAKE)


def _check_sheet(sheet: Path, folder: Path) -> None:
    """Raise `SettingError` for a sheet that is no PNG file, or that would become part of the data set."""
    if sheet.suffix.lower() != ".png":
        raise SettingError(f"--sheet {sheet}: expected the name of a file that ends in .png")
    if sheet.resolve().is_relative_to(folder.resolve()):
        raise SettingError(f"--sheet {sheet}: lies in the data set; choose a place outside {folder}")


def _untrainable(found: "Found") -> "Iterator[Fault]":
    """Yield why no training could begin, though every image and mask is sound."""
    from samfit.data.sources import Fault
    from samfit.data.splits import require_trainable

    try:
        require_trainable(found.samples)
    except DataError as error:
        yield Fault("error", found.samples[0].image.parent, str(error))


def _print_summary(inspection: "Inspection") -> None:
    sizes = [f"{size} ({count})" for size, count in inspection.sizes.items()]
    more = len(sizes) - _SIZES_SHOWN
    table = plain_table("", "")
    table.show_header = False
    table.add_row("pairs", _listed(f"{split} {count}" for split, count in inspection.images.items()))
    table.add_row("sizes", _listed(sizes[:_SIZES_SHOWN]) + (f" and {more} more" if more > 0 else ""))
    table.add_row("images", _listed(f"{kind} ({count})" for kind, count in inspection.kinds.items()))
    table.add_row("masks", _listed(f"{kind} ({count})" for kind, count in inspection.mask_kinds.items()))
    table.add_row("read as", inspection.reading.describe())
    table.add_row("values", _listed(f"{value} = {name}" for value, name in inspection.read_as.items()))
    for name in inspection.classes:
        share = f"{inspection.foreground_share[name]:.1%} of the area"
        table.add_row(name, f"{share}, masks without it: {inspection.empty_masks[name]}")
    between = sum(pair.between_splits for pair in inspection.duplicates)
    table.add_row("duplicates", f"{len(inspection.duplicates)}, {between} between splits")
    if inspection.groups:
        counts = [sum(splits.values()) for splits in inspection.groups.values()]
        table.add_row("groups", f"{len(counts)}, of {min(counts)} to {max(counts)} images")
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
