"""`samfit merge`: write a run as plain weights of its backbone."""

from typing import Any

import click

from samfit.cli.options import SettingsCommand, read_settings
from samfit.settings import MergeSettings


@click.command("merge", cls=SettingsCommand, settings=MergeSettings)
def command(**given: Any) -> None:
    """Write a run as plain weights of its backbone, with everything in them that was trained.

    For the methods that add nothing to the backbone, or only what its weights can take in: decoder, lora and
    full. The file has the names of the published one; 'samfit train --weights' takes it, at the image size of
    the run.
    """
    settings = read_settings(MergeSettings, given)
    from samfit.engine.merging import merge

    click.echo(click.format_filename(merge(settings)))
