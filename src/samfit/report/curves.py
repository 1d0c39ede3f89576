"""Curves as SVG, by matplotlib: loss and validation Dice over the epochs, and memory beside the score."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from samfit.metrics import METRICS
from samfit.metrics.protocols import PROTOCOLS
from samfit.report.overlays import PREDICTION_COLOURS

_INK = "#010203"
"""Becomes the colour of the text around a picture, whatever that is."""
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*X"
_SIZE = (5.0, 3.2)
"""Inches; a phone shows the picture at about this size, so that its words can be read."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        _INK,
    ),
}


def curves_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Return SVG by name: `loss`, `dice` and `memory`.

    The last is by the Dice of the first protocol that has it, else by the first protocol's first metric.
    A colour is a method, a line or marker a backbone at a size; lines are means over seeds.
    """
    rows = [row for row in results["rows"] if row["kind"] in ("run", "u-net") and row["protocols"]]
    runs = {run["name"]: run for run in results["runs"]}
    return {
        "loss": _over_epochs(rows, runs, "loss", "training loss"),
        "dice": _over_epochs(rows, runs, "validation_dice", "validation Dice (default)"),
        "memory": _memory(rows, *_score_of(list(results["protocols"]))),
    }


def _over_epochs(rows: Sequence[Mapping[str, Any]], runs: Mapping[str, Any], column: str, title: str) -> str:
    figure, axes = _figure(title, f"{column}-curve")
    for row in rows:
        tables = [runs[name]["per_epoch"] for name in row["runs"] if runs[name]["error"] is None]
        epochs = range(1, min(map(len, tables)) + 1)
        means = [sum(table[one - 1][column] for table in tables) / len(tables) for one in epochs]
        colour, dash, _ = _look(row, rows)
        axes.plot(epochs, means, color=colour, linestyle=dash, marker=".", label=row["label"])
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, axes, title)


def _score_of(protocols: Sequence[str]) -> tuple[str, str]:
    """Return the protocol and the metric that memory stands beside."""
    with_dice = [name for name in protocols if "dice" in PROTOCOLS[name].metrics]
    return (with_dice[0], "dice") if with_dice else (protocols[0], PROTOCOLS[protocols[0]].metrics[0])


def _memory(rows: Sequence[Mapping[str, Any]], protocol: str, metric: str) -> str:
    title = f"memory and {METRICS[metric].title} ({protocol})"
    figure, axes = _figure(title, "memory-curve")
    for row in rows:
        score = row["protocols"][protocol]["metrics"][metric]
        colour, _, marker = _look(row, rows)
        bars = None
        if score["low"] is not None:
            bars = [[max(0, score["mean"] - score["low"])], [max(0, score["high"] - score["mean"])]]
        axes.errorbar(
            [row["peak_bytes"] / 2**20],
            [score["mean"]],
            bars,
            color=colour,
            marker=marker,
            linestyle="",
            label=row["label"],
        )
    axes.set_xlabel("peak memory, MiB")
    return _svg(figure, axes, title)


def _look(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Return the colour, the dash and the marker of a row."""
    methods = list(dict.fromkeys(one["method"] for one in rows))
    places = list(dict.fromkeys((one["backbone"], one["image_size"]) for one in rows))
    colour = PREDICTION_COLOURS[methods.index(row["method"]) % len(PREDICTION_COLOURS)]
    place = places.index((row["backbone"], row["image_size"]))
    return "#{:02x}{:02x}{:02x}".format(*colour), _DASHES[place % 4], _MARKERS[place % len(_MARKERS)]


def _figure(title: str, name: str) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any, axes: Any, title: str) -> str:
    """Return a figure as SVG without a header, its size left to the page."""
    import matplotlib

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}):
        text = io.StringIO()
        if axes.get_legend_handles_labels()[0]:
            lines = len(axes.get_legend_handles_labels()[0])
            figure.set_size_inches(_SIZE[0], _SIZE[1] + 0.2 * lines)
            figure.legend(loc="outside lower left", frameon=False, fontsize=9)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    svg = text.getvalue().replace(_INK, "currentColor")
    return re.sub(r"^.*?(<svg)", r"\1", svg, count=1, flags=re.DOTALL)
