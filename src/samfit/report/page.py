"""The page of a comparison: one HTML file with everything in it, which no network is needed for."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from samfit.metrics import METRICS
from samfit.metrics.protocols import PROTOCOLS
from samfit.report.comparison import published_of, table_of
from samfit.report.overlays import ERROR_COLOURS, TRUTH_COLOUR
from samfit.report.panels import PANELS, panel_path

PICTURES = 3000
"""How many pictures of images one after the other the page holds at most; one takes about 10 KB of it."""


@dataclass(frozen=True)
class _Strip:
    """Some pictures of one image."""

    title: str
    pictures: Sequence[tuple[str, str]]
    """What each shows, and the picture as a data address."""


def page_of(results: Mapping[str, Any], runs: Path, curves: Mapping[str, str]) -> str:
    """Return the page. `runs`: the folder of the run folders. `curves`: SVG by name."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("samfit.report", "."), autoescape=True, trim_blocks=True)
    protocol = next(iter(results["protocols"]))
    run_of = {run["name"]: run for run in results["runs"]}
    return environment.get_template("page.html.j2").render(
        results=results,
        tables={protocol: table_of(results, protocol) for protocol in results["protocols"]},
        published={
            protocol: printed
            for protocol in results["protocols"]
            if (printed := published_of(results, protocol))
        },
        about=results["recipe"].get("about"),
        departures={protocol: _departures(results, protocol) for protocol in results["protocols"]},
        curves=curves,
        examples=[
            (row["label"], _examples(row, run_of, runs)) for row in results["rows"] if _shown_run(row, run_of)
        ],
        first_run=next(row["label"] for row in results["rows"] if row["kind"] == "run"),
        protocol=protocol,
        metric=METRICS[PROTOCOLS[protocol].metrics[0]].title,
        different={name: found for name, found in results["versions"].items() if len(found) > 1},
        every=_step(results),
        images=_all_images(results, run_of, runs),
        failed=[run for run in results["runs"] if run["error"] is not None],
        colours=[("truth", _css(TRUTH_COLOUR)), *((name, _css(colour)) for name, colour in ERROR_COLOURS)],
        recipe=yaml.safe_dump(results["recipe"], sort_keys=False, allow_unicode=True),
    )


def _departures(results: Mapping[str, Any], protocol: str) -> dict[str, list[str]]:
    """Return what is not as a protocol has it, and the labels of the rows of which that is true."""
    found: dict[str, list[str]] = {}
    for row in results["rows"]:
        for departure in row["protocols"].get(protocol, {"departures": ()})["departures"]:
            found.setdefault(departure, []).append(row["label"])
    return found


def _shown_run(row: Mapping[str, Any], runs: Mapping[str, Any]) -> str | None:
    """Return the run whose pictures stand for a row: that of its first seed that did not fail."""
    return next((name for name in row["runs"] if runs[name]["error"] is None), None)


def _scores(row: Mapping[str, Any], run: Mapping[str, Any]) -> Mapping[str, float]:
    return run["per_image"]["unadapted" if row["kind"] == "base" else "adapted"]


def _examples(row: Mapping[str, Any], runs: Mapping[str, Any], folder: Path) -> list[_Strip]:
    """Return the best, the median and the worst image of a row."""
    name = str(_shown_run(row, runs))
    told = runs[name]["per_image"]
    scores = _scores(row, runs[name])
    numbers = {image: number for number, image in enumerate(scores, 1)}
    ranked = sorted(
        scores, key=lambda image: scores[image], reverse=METRICS[told["metric"]].best == "highest"
    )
    places = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    panels = PANELS[:3] if row["kind"] == "base" else PANELS
    strips = []
    for word, place in places.items():
        image = ranked[place]
        title = f"{word}: {image}, {METRICS[told['metric']].title} {scores[image]:.4f} ({told['protocol']})"
        pictures = [
            (panel, address)
            for panel in panels
            if (address := _address(panel_path(_pictures(folder, name), numbers[image], panel)))
        ]
        strips.append(_Strip(title, pictures))
    return strips


def _step(results: Mapping[str, Any]) -> int:
    """Return n where every n-th image has its pictures on the page, so that they are `PICTURES` at most."""
    shown = max(1, PICTURES // (2 + len(results["rows"])))
    return math.ceil(results["images"] / shown)


def _all_images(results: Mapping[str, Any], runs: Mapping[str, Any], folder: Path) -> list[_Strip]:
    """Return every n-th image, with the answer of each base model and the errors of each row."""
    rows = [(row, name) for row in results["rows"] if (name := _shown_run(row, runs))]
    if not rows:
        return []
    _, first = rows[0]
    strips = []
    images = list(enumerate(runs[first]["per_image"]["adapted"], 1))
    for number, image in images[:: _step(results)]:
        wanted = [("image", first, "image"), ("truth", first, "truth")]
        for row, name in rows:
            told = f"{row['label']}: {_scores(row, runs[name])[image]:.3f}"
            wanted.append((told, name, "unadapted" if row["kind"] == "base" else "errors"))
        pictures = [
            (told, address)
            for told, name, panel in wanted
            if (address := _address(panel_path(_pictures(folder, name), number, panel)))
        ]
        strips.append(_Strip(image, pictures))
    return strips


def _pictures(folder: Path, run: str) -> Path:
    return folder / run / "evaluation" / "pictures"


def _address(path: Path) -> str | None:
    """Return a picture as an address that holds it, or None if it is not there."""
    if not path.is_file():
        return None
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({}, {}, {})".format(*colour)
