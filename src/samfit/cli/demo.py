"""`samfit demo`: all of it on drawn images, with no data needed."""

from pathlib import Path

import click

from samfit.cli.output import plain_table, print_table


@click.command("demo")
@click.option(
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    help="folder for the drawn data, the recipe and its report  [default: demo-run]",
)
@click.option("--overwrite", is_flag=True, help="replace the demo that --output holds")
def command(output: Path, overwrite: bool) -> None:
    """Show what adaptation does, on images that are drawn for it.

    Draws skin lesions as faint negatives, asks sam-tiny for each with one click, and then adapts its decoder
    alone, and CAD's adapter beside its encoder. Two minutes at most on two cores; nothing is downloaded.
    """
    from samfit.demo import run_demo

    results = run_demo(output, overwrite=overwrite)
    asked = f"{results['images']} new images, one click each (truth)"
    table = plain_table(asked, "Dice", "IoU", "trained parameters", "seconds")
    for row in results["rows"]:
        scores = row["protocols"]["default"]["metrics"]
        table.add_row(
            row["method"] or "zero-shot: base model, not adapted",
            *(f"{scores[metric]['mean']:.3f}" for metric in ("dice", "iou")),
            f"{row['trained_parameters']}",
            "–" if row["seconds"] is None else f"{row['seconds']:.0f}",
        )
    print_table(table)
    click.echo("\nprotocol default; (truth): the click is taken from the drawn mask")
    click.echo(f"\nreport  {click.format_filename(output / 'report' / 'report.html')}: open it in a browser")
    click.echo("with your own images:")
    click.echo("  samfit train --data DIR --dataset folder --backbone sam-tiny --output RUN")
