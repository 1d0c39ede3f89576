"""`samfit import`: make a run of a checkpoint that a published training code wrote."""

import json
import shlex
from typing import Any

import click

from samfit.cli.options import SettingsCommand, read_settings
from samfit.settings import ImportSettings


@click.command("import", cls=SettingsCommand, settings=ImportSettings)
def command(**given: Any) -> None:
    """Make a run of a checkpoint that a published training code wrote.

    CAD, the SAM-Adapter of CAD's repository, and Medical SAM Adapter on SAM and EfficientSAM. Kind, backbone
    and image size are recognised; the run gives the masks of the code that wrote the file. Nothing in the
    file is run.
    """
    settings = read_settings(ImportSettings, given)
    from samfit.engine.importing import import_checkpoint

    run = import_checkpoint(settings)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    place = shlex.quote(str(run))
    prompts = " --prompts clicks.csv" if summary["prompt"] == "click" else ""
    click.echo(f"checkpoint  {summary['imported']['kind']}")
    click.echo(f"run         {click.format_filename(run)}")
    click.echo("what to do next:")
    click.echo(f"  samfit predict {place} image.jpg --output masks{prompts}")
    click.echo(f"  samfit evaluate {place} --data DIR --dataset folder")
