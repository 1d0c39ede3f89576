"""`samfit train`: adapt a backbone to a data set, or go on with a run that was stopped."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.declare import flag
from samfit.errors import SettingError
from samfit.progress import is_first_process
from samfit.settings import TrainSettings


@click.command("train", cls=SettingsCommand, settings=TrainSettings)
@click.option(
    "--config",
    cls=Option,
    section="Run",
    metavar="FILE.yaml",
    type=click.Path(path_type=Path),
    help="settings that are not given as flags; RUN/config.yaml repeats a run",
)
@click.option(
    "--resume",
    cls=Option,
    section="Run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="go on with this run, with its own settings; takes no other flag",
)
@click.option(
    "--overwrite",
    cls=Option,
    section="Run",
    is_flag=True,
    help="replace the run that --output holds",
)
def command(config: Path | None, resume: Path | None, overwrite: bool, **given: Any) -> None:
    """Adapt a backbone to a data set.

    The best epoch on validation images, which are split off from the training images, becomes the result.
    Every setting may also stand in a YAML file (--config), under the name of its flag.
    """
    if resume is not None:
        _refuse_other_flags(given | {"config": config, "overwrite": overwrite or None})
        from samfit.engine.training import resume as resume_training

        run = resume_training(resume)
    else:
        settings = read_settings(TrainSettings, given, config)
        from samfit.engine.training import train

        run = train(settings, overwrite=overwrite)
    if is_first_process():
        _print_result(run)


def _refuse_other_flags(given: dict[str, Any]) -> None:
    others = [flag(field) for field, value in given.items() if value is not None]
    if others:
        raise SettingError(
            f"--resume goes on with the run's own settings; take away {', '.join(others)}, "
            "or start another run with --config RUN/config.yaml"
        )


def _print_result(run: Path) -> None:
    """Say how good the run is and what can be done with it."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    place = shlex.quote(str(run))
    click.echo(f"best epoch       {summary['best_epoch']}")
    mark = ", prompt from the truth" if summary["prompt_from_truth"] else ""
    dice, protocol = summary["validation"]["dice"], summary["protocol"]
    click.echo(f"validation Dice  {dice:.4f} (protocol {protocol}{mark})")
    click.echo(f"run              {click.format_filename(run)}")
    click.echo("what to do next:")
    click.echo(f"  samfit evaluate {place}")
    click.echo(f"  samfit predict {place} image.jpg --output masks")
