"""`samfit predict`: segment new images with a run."""

from typing import Any

import click

from samfit.cli.options import SettingsCommand, read_settings
from samfit.settings import PredictSettings


@click.command("predict", cls=SettingsCommand, settings=PredictSettings)
def command(**given: Any) -> None:
    """Segment images, or folders of images, and write PNG masks at their original size."""
    settings = read_settings(PredictSettings, given)
    from samfit.engine.prediction import predict

    for path in predict(settings):
        click.echo(click.format_filename(path))
