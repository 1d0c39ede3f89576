"""`samfit evaluate`: how good a run is, with the base model without adaptation beside it."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from samfit.cli.options import Option, SettingsCommand, read_settings
from samfit.cli.output import plain_table, print_json, print_table
from samfit.metrics import METRICS
from samfit.settings import EvaluateSettings


@click.command("evaluate", cls=SettingsCommand, settings=EvaluateSettings)
@click.option("--json", "as_json", cls=Option, is_flag=True, help="print the summary as JSON")
def command(as_json: bool, **given: Any) -> None:
    """Score a run on images that it was not trained on.

    A protocol says how scores are taken; 'samfit list protocols' shows them. The table has means, bootstrap
    95 % intervals, and the difference to the base model on the same images, a tie where its interval holds 0.
    RUN/evaluation/ gets the summary, a row for each image, and overlays.
    """
    settings = read_settings(EvaluateSettings, given)
    from samfit.engine.evaluation import evaluate

    summary = evaluate(settings)
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    from samfit.metrics.intervals import FEWEST

    table = plain_table("protocol", "prompt", "score", "of", "mean", "95 % interval")
    evaluations = [summary, *summary["other_protocols"].values()]
    for evaluation in evaluations:
        for row in _rows(evaluation):
            table.add_row(evaluation["protocol"], _prompt(evaluation), *row)
    print_table(table)
    empty = summary["empty_targets"]
    counted = f"; masks without foreground: {empty}" if empty else ""
    grouped = f" in {summary['groups']} groups" if summary["groups"] else ""
    click.echo(f"\n{summary['images']} images of the {summary['split']} split{grouped}{counted}")
    if (summary["groups"] or summary["images"]) < FEWEST:
        what = "groups" if summary["groups"] else "images"
        click.echo(
            f"no intervals: they take {FEWEST} {what} at least, and without them nothing is better or worse"
        )
    if any(evaluation["prompt_from_truth"] for evaluation in evaluations):
        click.echo(
            "(truth): the prompt was taken from the truth; not comparable with scores of other prompts"
        )
    for evaluation in evaluations:
        click.echo(f"\nprotocol {evaluation['protocol']}: {evaluation['protocol_description']}")
        for departure in evaluation["departures"]:
            click.echo(f"  but: {departure}")


def _rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what is shown of one protocol: each score of run, base model and difference, then of classes."""
    for name in evaluation["metrics"]:
        title = METRICS[name].title
        yield title, "adapted", *_cells(evaluation["metrics"][name])
        yield title, "base model, not adapted", *_cells(evaluation["unadapted"]["metrics"][name])
        difference = evaluation["difference"]["metrics"][name]
        yield title, f"difference: {difference['verdict']}", *_cells(difference, "+")
    if len(evaluation["per_class"]) > 1:
        for label, metrics in evaluation["per_class"].items():
            for name, score in metrics.items():
                yield f"{METRICS[name].title}, {label}", "adapted", *_cells(score)


def _prompt(evaluation: Mapping[str, Any]) -> str:
    words = " of ".join(filter(None, (evaluation["prompt"], evaluation["prompt_class"])))
    return f"{words} (truth)" if evaluation["prompt_from_truth"] else words


def _cells(score: Mapping[str, float | None], sign: str = "") -> tuple[str, str]:
    """Return the mean and the interval of one score; a dash where images are too few for one."""
    mean, low, high = (
        "–" if score[end] is None else f"{score[end]:{sign}.4f}" for end in ("mean", "low", "high")
    )
    return mean, "–" if score["low"] is None else f"{low} to {high}"
