"""Scores of an evaluation as a summary and as a table, each figure beside the name of its protocol."""

import csv
import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from samfit.metrics import METRICS
from samfit.metrics.intervals import bootstrap_interval, paired_difference
from samfit.metrics.protocols import Protocol, from_truth
from samfit.metrics.scores import ImageScore


@dataclass(frozen=True)
class Scored:
    """The scores that a run and its base model got by one protocol, on the same images in one order."""

    protocol: Protocol
    prompt: str
    """The kind of prompt that was asked with."""
    prompt_class: str | None
    """The class that prompts were taken from, or None for all together."""
    departures: tuple[str, ...]
    """What differs from the protocol, or from how the run was trained, one sentence each."""
    adapted: Sequence[ImageScore]
    unadapted: Sequence[ImageScore] | None
    """None for an answer that has no base model, such as that of a network trained from scratch."""


def intervals_of(groups: Sequence[Hashable] | None) -> str:
    """Return what `low` and `high` are. `groups`: what each image belongs to, where that is known."""
    return f"BCa bootstrap over {'images' if groups is None else 'groups of images'}, 95 %"


def fit_departures(protocol: Protocol, fit: str) -> Iterator[str]:
    """Yield a sentence if published results of a protocol bring images into the frame in another way."""
    if protocol.fit not in (None, fit):
        yield f"the run has --fit {fit}, published results of this protocol --fit {protocol.fit}"


def summarise_all(
    evaluations: Sequence[Scored], classes: Sequence[str], groups: Sequence[Hashable] | None
) -> dict[str, Any]:
    """Return how many images and groups were scored, and the scores of each protocol, the first on top."""
    first, *others = [summarise(scored, classes, groups) for scored in evaluations]
    return {
        "images": len(evaluations[0].adapted),
        "groups": None if groups is None else len(set(groups)),
        "intervals": intervals_of(groups),
        **first,
        "other_protocols": {other["protocol"]: other for other in others},
    }


def summarise(
    scored: Scored, classes: Sequence[str], groups: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Return the scores of one protocol as plain types: means, intervals and what to know of them.

    `groups`: what each image belongs to, so that intervals are over groups.
    """
    protocol = scored.protocol
    beside = {}
    if scored.unadapted is not None:
        beside = {
            "unadapted": {"metrics": _intervals(protocol, scored.unadapted, groups)},
            "difference": {"metrics": _differences(protocol, scored.adapted, scored.unadapted, groups)},
        }
    return {
        "protocol": protocol.name,
        "protocol_description": protocol.describe(),
        "prompt": scored.prompt,
        "prompt_class": scored.prompt_class if from_truth(scored.prompt) else None,
        "prompt_from_truth": from_truth(scored.prompt),
        "scored_size": protocol.size or "original",
        "departures": list(scored.departures),
        "empty_targets": sum(sum(score.empty_target) for score in scored.adapted),
        "empty_predictions": sum(sum(score.empty_prediction) for score in scored.adapted),
        "metrics": _intervals(protocol, scored.adapted, groups),
        "per_class": {
            name: _intervals(protocol, scored.adapted, groups, index) for index, name in enumerate(classes)
        },
        **beside,
    }


def per_image_table(evaluations: Sequence[Scored], classes: Sequence[str]) -> str:
    """Return CSV with one row a protocol, image and class.

    A metric that a protocol lacks is left empty, and so is the base model where there is none.
    """
    metrics = list(dict.fromkeys(name for scored in evaluations for name in scored.protocol.metrics))
    scores = [column for name in metrics for column in (name, f"unadapted_{name}")]
    taken = ["protocol", "prompt", "prompt_from_truth"]
    columns = [*taken, "image", "class", *scores, "empty_target", "empty_prediction"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for scored in evaluations:
        protocol, prompt = scored.protocol, scored.prompt
        how = dict(zip(taken, (protocol.name, prompt, int(from_truth(prompt))), strict=True))
        unadapted = scored.unadapted or [None] * len(scored.adapted)
        for one, other in zip(scored.adapted, unadapted, strict=True):
            for index, label in enumerate(classes):
                row = how | {"image": one.id, "class": label}
                for name in protocol.metrics:
                    row[name] = f"{one.values[name][index]:.6f}"
                    if other is not None:
                        row[f"unadapted_{name}"] = f"{other.values[name][index]:.6f}"
                row["empty_target"] = int(one.empty_target[index])
                row["empty_prediction"] = int(one.empty_prediction[index])
                writer.writerow(row)
    return text.getvalue()


def image_means(name: str, scores: Sequence[ImageScore], class_index: int | None = None) -> list[float]:
    """Return one value an image: of one class, or the mean over classes."""
    values = [score.values[name] for score in scores]
    return [float(np.mean(row)) if class_index is None else row[class_index] for row in values]


def _intervals(
    protocol: Protocol,
    scores: Sequence[ImageScore],
    groups: Sequence[Hashable] | None,
    class_index: int | None = None,
) -> dict[str, Mapping[str, float | None]]:
    return {
        name: asdict(bootstrap_interval(image_means(name, scores, class_index), groups=groups))
        for name in protocol.metrics
    }


def _differences(
    protocol: Protocol,
    adapted: Sequence[ImageScore],
    unadapted: Sequence[ImageScore],
    groups: Sequence[Hashable] | None,
) -> dict[str, dict[str, Any]]:
    """Return the run's scores minus those of its base model, paired by image."""
    return {
        name: asdict(
            paired_difference(
                image_means(name, adapted),
                image_means(name, unadapted),
                best=METRICS[name].best,
                groups=groups,
            )
        )
        for name in protocol.metrics
    }
