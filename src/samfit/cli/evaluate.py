"""`samfit evaluate`: how good a run is, with the base model without adaptation beside it."""

from collections.abc import Mapping
from typing import Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_json, print_table
from samfit.settings import EvaluateSettings


@click.command("evaluate", cls=SettingsCommand, settings=EvaluateSettings)
@click.option("--json", "as_json", cls=Option, is_flag=True, help="print the summary as JSON")
def command(as_json: bool, **given: Any) -> None:
    """Score a run on images that it was not trained on.

    Dice and IoU are taken for each image at its original size; the table shows their means and bootstrap
    95 % intervals. RUN/evaluation/ gets the summary, a row for each image, and overlays.
    """
    settings = read_settings(EvaluateSettings, given)
    from samfit.engine.evaluation import evaluate

    summary = evaluate(settings)
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    table = plain_table("", "Dice", "95 % interval", "IoU", "95 % interval")
    rows = {"adapted": summary["metrics"], "base model, unadapted": summary["unadapted"]["metrics"]}
    if len(summary["per_class"]) > 1:
        rows |= {f"adapted, {name}": metrics for name, metrics in summary["per_class"].items()}
    for name, metrics in rows.items():
        table.add_row(name, *_cells(metrics["dice"]), *_cells(metrics["iou"]))
    print_table(table)
    prompt = " of ".join(filter(None, (summary["prompt"], summary["prompt_class"])))
    click.echo(f"\n{summary['images']} images of the {summary['split']} split; prompt: {prompt}")
    if summary["empty_targets"]:
        click.echo(f"masks without foreground: {summary['empty_targets']}")
    click.echo(summary["protocol_description"])


def _cells(score: Mapping[str, float | None]) -> tuple[str, str]:
    """Return the mean and the interval of one score; a score of no image is a dash."""
    if score["mean"] is None:
        return "–", "–"
    return f"{score['mean']:.4f}", f"{score['low']:.4f} to {score['high']:.4f}"
