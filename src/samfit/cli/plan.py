"""`samfit plan`: what a training takes of a device's memory, known before it runs."""

from typing import Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_json, print_table
from samfit.plan.choice import ALLOWANCE
from samfit.plan.setup import PARTS
from samfit.plan.tables import Line, lines
from samfit.settings import PlanSettings

_ABOUT = ("backbone", "method", "precision", "checkpointing", "cache", "late-blocks", "batch")
"""Columns that leave the table where every line says the same."""
_ALL = "all"
_SHORT = {"optimizer": "optim.", "gradients": "grads", "activations": "activ.", "temporary": "temp."}


@click.command("plan", cls=SettingsCommand, settings=PlanSettings)
@click.option("--json", "as_json", cls=Option, is_flag=True, help="print the plan as JSON")
def command(as_json: bool, **given: Any) -> None:
    """Say how much memory a training takes, without weights, images or a GPU.

    Without --vram: the bytes of a training step and of a prediction. With it: what fits into so much memory,
    with the largest batch and what is given up for it, best first. One line for each method on each backbone;
    every way to make a step where one backbone and one method are named.
    """
    settings = read_settings(PlanSettings, given)
    found = lines(settings)
    if as_json:
        print_json([line.in_words() for line in found])
    elif settings.vram is None:
        _print_bytes(found)
    else:
        _print_fitting(found, settings.vram)


def _print_bytes(found: list[Line]) -> None:
    rows = [
        _words(line)
        | {"batch": str(line.setup.batch_size)}
        | {_SHORT.get(part, part): _mb(getattr(line.training, part)) for part in PARTS}
        | {"peak": _mb(line.peak), "predict": _mb(line.prediction.peak)}
        for line in found
    ]
    _print(rows)
    click.echo("\nMB (10^6 bytes) on one device, from the second step on; predict: one image")
    _say_the_rest(found)


def _print_fitting(found: list[Line], vram: int) -> None:
    rows = [
        _words(line)
        | {"largest batch": str(line.largest_batch or "–"), "one image": f"{_mb(line.peak)} MB"}
        | {"given up": _given_up(line)}
        for line in found
    ]
    _print(rows)
    click.echo(f"\nlargest batch: images that pass at once within {_mb(vram)} MB (10^6 bytes)")
    _say_the_rest(found)


def _words(line: Line) -> dict[str, str]:
    """Return what a line is about, by the names of the flags."""
    setup = line.setup
    return {
        "backbone": setup.backbone,
        "method": setup.method,
        "precision": setup.precision,
        "checkpointing": "on" if setup.checkpointing else "off",
        "cache": "on" if setup.cached else "off",
        "late-blocks": str(dict(setup.options).get("late_blocks", _ALL)),
    }


def _given_up(line: Line) -> str:
    return "; ".join(line.given_up) or "nothing" if line.largest_batch else "does not fit"


def _print(rows: list[dict[str, str]]) -> None:
    """Print rows as a table; above it what they all have in common."""
    common = {name: value for name, value in rows[0].items() if all(row[name] == value for row in rows)}
    about = {name: value for name, value in common.items() if name in _ABOUT}
    columns = [name for name in rows[0] if name not in about]
    click.echo(", ".join(f"{name} {value}" for name, value in about.items() if value != _ALL))
    table = plain_table(*columns)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    print_table(table)


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"


def _say_the_rest(found: list[Line]) -> None:
    """Say what every number leaves out, and how to see more."""
    click.echo(f"to be left free beside it: {_mb(ALLOWANCE)} MB for CUDA, or Python and torch")
    if len({(line.setup.backbone, line.setup.method) for line in found}) > 1:
        click.echo("every way to make a step: samfit plan --backbone NAME --method NAME")
