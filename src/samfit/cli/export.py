"""`samfit export`: write a run as the published code of its method saves it."""

from typing import Any

import click

from samfit.cli.options import SettingsCommand, read_settings
from samfit.settings import ExportSettings


@click.command("export", cls=SettingsCommand, settings=ExportSettings)
def command(**given: Any) -> None:
    """Write a run's whole model to one file under published names.

    CAD, SAM-Adapter and Medical SAM Adapter as their published code saves them, which is what samfit import
    reads; every other method as plain weights of its backbone.
    """
    settings = read_settings(ExportSettings, given)
    from samfit.engine.export import export

    click.echo(click.format_filename(export(settings)))
