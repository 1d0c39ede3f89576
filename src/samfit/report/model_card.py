"""The card of a run: in words what was trained, on what, how well, and what it may be used for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from samfit.backbones import card_of
from samfit.declare import flag, written
from samfit.metrics import METRICS
from samfit.report.comparison import Table, markdown
from samfit.settings import TrainSettings

_SECTIONS = ("Model", "Method", "Data", "Prompt", "Training")
"""Those whose settings tell what was learnt; the others are about files and machines."""
_SAID_ELSEWHERE = ("data", "group", "weights", "backbone", "method", "classes")
"""Settings that the card says in other words, or that may hold a path of the user's machine."""
_NOT_SCORED = "It has not been scored on other images yet: `samfit evaluate` does that."
_OWN_FILE = "that of the file `{}`, which whoever made it knows"
_RANDOM = "none, as they were drawn at random; the encoder has learnt nothing"


def model_card(
    settings: Mapping[str, Any], summary: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None
) -> str:
    """Return the card of a run in Markdown.

    `settings`: every setting of the run by field, as plain values. `summary` and `evaluation`: what
    `summary.json` and `evaluation/summary.json` hold; without the second it says that nothing was scored.
    """
    images = summary["images"]
    weights = _weights(settings)
    template = files("samfit.report").joinpath("model_card.md").read_text(encoding="utf-8")
    return Template(template).substitute(
        method=settings["method"],
        backbone=settings["backbone"],
        classes=", ".join(summary["empty_masks"]),
        version=summary["versions"]["samfit"],
        validation_images=images["validation"],
        epochs=summary["epochs"],
        validation=", ".join(
            f"{METRICS[name].title} {summary['validation'][name]:.3f}" for name in ("dice", "iou")
        ),
        protocol=summary["protocol"],
        prompt=summary["prompt"],
        from_truth=", taken from the truth" if summary["prompt_from_truth"] else "",
        scores="\n".join(_scores(evaluation)) if evaluation else _NOT_SCORED,
        parts=_table(
            ("part", ""),
            [
                ("backbone", f"{settings['backbone']}: {card_of(settings['backbone']).paper}"),
                ("base weights", weights[0]),
                ("SHA-256 of these", f"`{summary['base_sha256']}`"),
                ("method", settings["method"]),
                ("trained", f"{summary['trained_parameters']:,} of {summary['parameters']:,} parameters"),
            ],
        ),
        data=_table(
            ("what", ""),
            [
                ("images to train on", str(images["train"])),
                ("images to validate with", str(images["validation"])),
                *((f"masks without {name}", str(count)) for name, count in summary["empty_masks"].items()),
                ("masks are read so", summary["mask_reading"]),
                ("fingerprint of all files", f"`{summary['data_fingerprint']}`"),
            ],
        ),
        settings=_table(("setting", "value"), _told(settings)),
        licence=weights[1],
        versions=_table(("package", "version"), summary["versions"].items()),
    )


def _weights(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the base weights are, and their licence."""
    weights, published = settings["weights"], card_of(settings["backbone"]).weights
    if weights == "random":
        return f"random, from seed {settings['seed']}", _RANDOM
    if weights == "published":
        return f"published: {published.name}", published.licence
    name = Path(weights).name
    return f"the file {name}", _OWN_FILE.format(name)


def _told(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings that say how the run was made, by their flags, without those that have no value."""
    for field, declared in TrainSettings.model_fields.items():
        extra, value = declared.json_schema_extra, settings.get(field)
        section = extra["section"] if isinstance(extra, dict) else None
        shown = section in _SECTIONS and field not in _SAID_ELSEWHERE
        if (shown or field in ("seed", "precision")) and value is not None:
            yield f"`{flag(field)}`", written(value)


def _scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scores of each protocol beside those of the base model, and what departs from it."""
    protocols = [evaluation, *evaluation["other_protocols"].values()]
    which = f"{evaluation['images']} images of the {evaluation['split']} split"
    yield f"On {which} ({evaluation['intervals']}):\n"
    yield _table(
        ("protocol", "prompt", "score", "this run", "base model"),
        [
            (
                f"`{one['protocol']}`",
                one["prompt"] + (" (truth)" if one["prompt_from_truth"] else ""),
                METRICS[name].title,
                _with_interval(score),
                _with_interval(one["unadapted"]["metrics"][name]),
            )
            for one in protocols
            for name, score in one["metrics"].items()
        ],
    )
    departures = [f"- `{one['protocol']}`: {words}" for one in protocols for words in one["departures"]]
    if departures:
        yield "\n" + "\n".join(departures)


def _with_interval(score: Mapping[str, float | None]) -> str:
    if score["mean"] is None:
        return "–"
    ends = "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"
    return f"{score['mean']:.3f}{ends}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown(Table(heads, list(rows))).rstrip()
