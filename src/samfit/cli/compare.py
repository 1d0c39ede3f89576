"""`samfit compare`: every combination of a recipe, trained, scored and shown beside the others."""

from typing import Any

import click

from samfit.cli.options import SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_table
from samfit.settings import CompareSettings

_A_RUN_FAILED = 1


@click.command("compare", cls=SettingsCommand, settings=CompareSettings)
@click.pass_context
def command(context: click.Context, **given: Any) -> None:
    """Train and score every combination of a recipe, and write one report.

    RECIPE is a YAML file: its keys are names of flags of 'samfit train' and 'samfit evaluate', and backbones,
    image_sizes, methods and seeds are lists that span a grid. Or it is the name of a recipe that samfit
    brings: 'samfit list recipes' shows them. Finished runs in the folder are reused, one that was interrupted
    goes on, and one that fails does not end the others.

    The base models without adaptation, the mean training mask and a U-Net trained from scratch stand beside.

    Ends with status 1 if a run failed.
    """
    settings = read_settings(CompareSettings, given)
    from samfit.compare.comparing import compare

    results = compare(settings)
    from samfit.report.comparison import short_table_of

    for protocol in results["protocols"]:
        shown = short_table_of(results, protocol)
        table = plain_table(*shown.columns)
        for row in shown.rows:
            table.add_row(*row)
        print_table(table)
        click.echo("")
    failed = [run for run in results["runs"] if run["error"] is not None]
    for run in failed:
        click.echo(f"failed: {run['name']}: {run['error']}")
    click.echo(f"report  {click.format_filename(settings.output / 'report.html')}")
    if failed:
        context.exit(_A_RUN_FAILED)
