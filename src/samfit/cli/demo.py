"""`samfit demo`: all of it on drawn images, with no data needed."""

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    help="folder for the drawn data, the run and its overlays  [default: demo-run]",
)
@click.option("--overwrite", is_flag=True, help="replace the demo that --output holds")
def command(output: Path, overwrite: bool) -> None:
    """Draw a small data set, adapt sam-tiny to it, and show the scores before and after.

    Takes two minutes at most on two cores. Nothing is downloaded.
    """
    from samfit.demo import run_demo

    run_demo(output, overwrite=overwrite)
