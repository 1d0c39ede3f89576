"""`evaluate`: how good a run is on images that it was not trained on, with the base model beside it."""

import csv
import heapq
import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samfit.data.batches import Preparation, Scored, ScoredSet
from samfit.data.inspect import inspect, require_sound
from samfit.data.sources import Found, find_samples
from samfit.data.splits import hold_out
from samfit.defaults import as_in_run, require_prompt_class
from samfit.engine.devices import open_fabric
from samfit.engine.models import FinishedRun, open_run, prompt_rule
from samfit.engine.scoring import ImageScore, score_set
from samfit.errors import DataError, RunError, SettingError
from samfit.files import write_json, write_text
from samfit.metrics import bootstrap_interval
from samfit.progress import track
from samfit.report.overlays import draw_overlay, write_png
from samfit.runs import RunFolder
from samfit.settings import EvaluateSettings, TrainSettings, resolved
from samfit.types import Sample

logger = logging.getLogger(__name__)

PROTOCOL = (
    "Dice and IoU of each image at its original size, thresholds 0.5 on probability and truth, no smoothing, "
    "mean over classes, then over images; bootstrap 95 % interval over images. "
    "Nothing in truth and prediction counts as 1, nothing in one of them as 0."
)


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a run and its base model without adaptation; return what `evaluation/summary.json` holds.

    Also writes `per_image.csv` and the overlays of the worst images. Raises `RunError` if there is no such
    run or its adapter does not fit, `DataError` if the data cannot be used or has no such split.
    """
    folder = RunFolder(settings.run)
    trained = folder.settings()
    settings = as_in_run(settings, trained)
    if settings.data is None:
        raise RunError(f"{folder.path} was imported and has no data set: give one with --data and --dataset")
    elsewhere = trained.data is None or settings.data.resolve() != trained.data.resolve()
    if folder.base.is_file():
        logger.warning(
            "the base model without adaptation has the adapted mask decoder: %s was imported, and its "
            "checkpoint does not hold the original one",
            folder.path,
        )
    run = open_run(folder, keep_base=True)
    run.model.backbone.attend(settings.attention)
    require_prompt_class(settings, run.model.classes)
    found = _find(settings, run)
    inspection = inspect(found, page=trained.page, progress=track)
    require_sound(inspection)
    if elsewhere:  # what is doubtful in the run's own data was said when it was trained
        for fault in inspection.faults:
            if fault.level == "warning":
                logger.warning("%s", fault.message)
    samples = _of_split(found.samples, settings, None if elsewhere else trained)
    frame = run.model.backbone.frame
    scored = ScoredSet(
        samples,
        Preparation(
            classes=run.model.classes,
            reading=inspection.reading,
            frame=frame,
            prompt=prompt_rule(settings, trained.seed),
            read_extra=run.model.row.reader,
            page=trained.page,
        ),
    )
    fabric = open_fabric(settings.accelerator)
    model = run.model.to(fabric.device)
    worst = _Worst(settings.overlays)
    adapted = score_set(model, frame, scored, fabric, settings.batch_size, watch=worst.add, said="adapted")
    with model.disabled():
        base = score_set(model, frame, scored, fabric, settings.batch_size, said="base model")
    from_truth = settings.prompt in ("click", "box")
    summary = {
        "protocol": "default",
        "protocol_description": PROTOCOL,
        "split": settings.split,
        "images": len(samples),
        "prompt": settings.prompt,
        "prompt_class": settings.prompt_class if from_truth else None,
        "prompt_from_truth": from_truth,
        "empty_targets": sum(sum(score.empty_target) for score in adapted),
        "mask_reading": inspection.reading.describe(),
        "metrics": _metrics(adapted),
        "per_class": {name: _metrics(adapted, index) for index, name in enumerate(run.model.classes)},
        "unadapted": {"metrics": _metrics(base)},
    }
    write_text(folder.evaluation / "per_image.csv", _per_image(run.model.classes, adapted, base))
    worst.write(folder)
    write_json(folder.evaluation / "summary.json", summary)
    return summary


def _find(settings: EvaluateSettings, run: FinishedRun) -> Found:
    """Find the samples, with masks of the run's classes.

    Where run and data set have one class each, these are the same, whatever their names: `lesion` and
    `foreground`, say.
    """
    dataset, data = str(settings.dataset), resolved(settings.data)
    classes, values = run.model.classes, run.settings.mask_values
    try:
        return find_samples(dataset, data, classes=classes, values=values)
    except SettingError:
        found = find_samples(dataset, data, values=values)
    if len(classes) != 1 or len(found.classes) != 1:
        raise DataError(
            f"{data}: the run segments {', '.join(classes)}, the data set has {', '.join(found.classes)}"
        )
    (own,), (name,) = classes, found.classes
    samples = tuple(replace(sample, masks={own: sample.masks[name]}) for sample in found.samples)
    return replace(found, samples=samples, classes=classes)


def _of_split(
    samples: Sequence[Sample], settings: EvaluateSettings, trained: TrainSettings | None
) -> list[Sample]:
    """Return the samples of the split asked for; training and validation are cut as the run cut them."""
    if trained is not None and settings.split != "test":
        training, validation = hold_out(samples, trained.validation_fraction, trained.seed)
        return training if settings.split == "train" else validation
    chosen = [sample for sample in samples if sample.split == settings.split]
    if not chosen:
        held_out = set() if trained is None else {"validation"}
        there = sorted({sample.split for sample in samples} | held_out)
        raise DataError(
            f"--split {settings.split}: {settings.data} has no such images; it has --split {', '.join(there)}"
        )
    return chosen


def _metrics(scores: Sequence[ImageScore], class_index: int | None = None) -> dict[str, dict[str, float]]:
    """Return mean and interval of Dice and IoU, of one class or of the mean over classes."""
    result = {}
    for name in ("dice", "iou"):
        values = [getattr(score, name) for score in scores]
        means = [float(np.mean(row)) if class_index is None else row[class_index] for row in values]
        interval = bootstrap_interval(means)
        result[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return result


def _per_image(classes: Sequence[str], adapted: Sequence[ImageScore], base: Sequence[ImageScore]) -> str:
    """Return one row an image and class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "image",
            "class",
            "dice",
            "iou",
            "unadapted_dice",
            "unadapted_iou",
            "empty_target",
            "empty_prediction",
        ]
    )
    for one, other in zip(adapted, base, strict=True):
        for index, name in enumerate(classes):
            scores = (one.dice[index], one.iou[index], other.dice[index], other.iou[index])
            empty = (one.empty_target[index], one.empty_prediction[index])
            writer.writerow([one.id, name, *(f"{score:.6f}" for score in scores), *map(int, empty)])
    return text.getvalue()


class _Worst:
    """Keeps the images with the lowest Dice, for their overlays."""

    def __init__(self, count: int):
        self._count = count
        self._kept: list[tuple[float, str, Scored, NDArray[np.bool_]]] = []

    def add(self, item: Scored, probability: NDArray[np.float32], score: ImageScore) -> None:
        """Take one scored image."""
        entry = (-float(np.mean(score.dice)), item.sample.id, item, probability >= 0.5)
        heapq.heappush(self._kept, entry)
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def write(self, folder: RunFolder) -> None:
        """Write the overlays, the worst with the lowest number; those of an earlier evaluation go."""
        target = folder.evaluation / "overlays"
        for old in target.glob("*.png"):
            old.unlink()
        for number, (_, name, item, mask) in enumerate(
            sorted(self._kept, key=lambda e: e[:2], reverse=True), 1
        ):
            picture = draw_overlay(item.image, mask, item.masks >= 0.5)
            # A character has four bytes at most, the name of a file 255.
            write_png(target / f"{number:02d}_{name[:60]}.png", picture)
