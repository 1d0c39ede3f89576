"""`evaluate`: how good a run is on images that it was not trained on, with the base model beside it."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from samfit.data.batches import Preparation, PromptRule, ScoredSet
from samfit.data.inspect import inspect, require_sound, say_doubts
from samfit.data.reading import MaskReading
from samfit.data.sources import Found, find_samples
from samfit.data.sources.groups import assign_groups
from samfit.data.splits import hold_out
from samfit.declare import flag, typed
from samfit.defaults import as_in_run, in_words, require_prompt_class, settings_of_prompt
from samfit.engine.devices import open_fabric
from samfit.engine.memory import on_device
from samfit.engine.models import FinishedRun, open_run, prompt_rule
from samfit.engine.pictures import Pictures, Worst
from samfit.engine.scoring import Answer, Watch, score_protocols
from samfit.errors import DataError, RunError, SettingError
from samfit.files import write_json, write_text
from samfit.metrics import require_metrics
from samfit.metrics.protocols import Protocol, protocol_of
from samfit.metrics.scores import ImageScore, measures_borders, with_borders
from samfit.metrics.surfaces import Ruler
from samfit.progress import track
from samfit.report.model_card import model_card
from samfit.report.scores import Scored, fit_departures, per_image_table, summarise_all
from samfit.runs import RunFolder
from samfit.settings import EvaluateSettings, TrainSettings, resolved
from samfit.types import Sample

logger = logging.getLogger(__name__)


def evaluate(settings: EvaluateSettings, *, pictures: Pictures | None = None) -> dict[str, Any]:
    """Score a run and its base model without adaptation; return what `evaluation/summary.json` holds.

    Also writes `per_image.csv`, the overlays of the worst images and, on the run's own data, the scores into
    its model card. `pictures`: draws each image, as the first protocol asks for it. Raises `RunError` if
    there is no such run or its adapter does not fit, `DataError` if the data cannot be used or has no such
    split, and `SettingError` if a setting contradicts a protocol or a metric needs a package that is not
    installed.
    """
    folder, group = RunFolder(settings.run), settings.group
    trained = folder.settings()
    protocols, ruler = protocols_of(settings)
    asked = {row.name: as_in_run(settings, trained, row) for row in protocols}
    settings = asked[protocols[0].name]
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
    found = _find(settings, run, None if elsewhere else trained.group)
    inspection = inspect(found, page=trained.page, progress=track)
    require_sound(inspection)
    if elsewhere:  # what is doubtful in the run's own data was said when it was trained
        say_doubts(inspection)
    samples = of_split(found.samples, settings, None if elsewhere else trained)
    if group is not None:
        samples = _regrouped(samples, settings.data, group)
    worst = Worst(settings.overlays, protocols[0], resolved(settings.prompt))
    scores = _score(run, samples, inspection.reading, protocols, asked, ruler, worst, pictures)
    evaluations = [
        Scored(
            protocol=row,
            prompt=resolved(asked[row.name].prompt),
            prompt_class=asked[row.name].prompt_class,
            departures=tuple(_departures(row, asked[row.name], run, elsewhere=elsewhere)),
            adapted=scores[row.name][0],
            unadapted=scores[row.name][1],
        )
        for row in protocols
    ]
    summary = {
        "split": settings.split,
        "mask_reading": inspection.reading.describe(),
        "checkpoint_chosen_on": None if trained.data is None else "validation",
        **summarise_all(evaluations, run.model.classes, groups_of(samples)),
    }
    write_text(folder.evaluation / "per_image.csv", per_image_table(evaluations, run.model.classes))
    worst.write(folder)
    write_json(folder.evaluation / "summary.json", summary)
    if folder.summary.is_file() and not elsewhere:
        of_training = json.loads(folder.summary.read_text(encoding="utf-8"))
        write_text(folder.card, model_card(in_words(trained), of_training, summary))
    return summary


def protocols_of(settings: EvaluateSettings) -> tuple[list[Protocol], Ruler]:
    """Return the protocols that are asked for, with the metrics of borders if these are, and their ruler."""
    protocols = [protocol_of(name) for name in settings.protocol]
    if settings.surface:
        if not any(map(measures_borders, protocols)):
            raise SettingError(
                f"--surface: borders are measured at the original size, between masks; none of the protocols "
                f"{', '.join(settings.protocol)} compares these; add default to --protocol"
            )
        protocols = [with_borders(row) if measures_borders(row) else row for row in protocols]
    given = {"spacing": settings.spacing, "tolerance": settings.tolerance}
    used = {field: value for field, value in given.items() if value is not None}
    if used and not settings.surface:
        field, value = next(iter(used.items()))
        raise SettingError(f"{typed(field, value)}: only --surface uses it; add --surface")
    require_metrics(name for row in protocols for name in row.metrics)
    return protocols, Ruler(**used)


def _score(
    run: FinishedRun,
    samples: Sequence[Sample],
    reading: MaskReading,
    protocols: Sequence[Protocol],
    asked: Mapping[str, EvaluateSettings],
    ruler: Ruler,
    worst: Worst,
    pictures: Pictures | None,
) -> dict[str, tuple[list[ImageScore], list[ImageScore]]]:
    """Return, by protocol, the scores of the run and of its base model; each prompt is asked once."""
    settings = asked[protocols[0].name]
    fabric = open_fabric(settings.accelerator)
    model, frame = on_device(run.model, fabric.device), run.model.backbone.frame
    of_rule: dict[PromptRule, list[Protocol]] = {}
    for row in protocols:
        of_rule.setdefault(prompt_rule(asked[row.name], run.settings.seed), []).append(row)
    scores = {}
    for rule, rows in of_rule.items():
        scored = ScoredSet(
            samples,
            Preparation(
                classes=run.model.classes,
                reading=reading,
                frame=frame,
                prompt=rule,
                read_extra=run.model.row.reader,
                page=run.settings.page,
            ),
        )
        score = partial(score_protocols, model, frame, scored, fabric, settings.batch_size, rows, ruler=ruler)
        shown = pictures if protocols[0] in rows else None
        watches = [worst.add] if protocols[0] in rows else []
        watches += [shown.adapted] if shown else []
        adapted = score(watch=_all_of(watches), said=f"adapted, {rule.kind}")
        with model.disabled():
            base = score(watch=shown.unadapted if shown else None, said=f"base model, {rule.kind}")
        scores |= {row.name: (adapted[row.name], base[row.name]) for row in rows}
    return scores


def _all_of(watches: Sequence[Watch]) -> Watch:
    """Return what shows an answer to each of several."""

    def watch(answer: Answer, scores: Mapping[str, ImageScore]) -> None:
        for one in watches:
            one(answer, scores)

    return watch


def _departures(
    protocol: Protocol, asked: EvaluateSettings, run: FinishedRun, *, elsewhere: bool
) -> Iterator[str]:
    """Yield what of this evaluation is not as the protocol, or as the training, has it.

    `elsewhere`: whether the images are of other data than the run's, so that it has not seen them.
    """
    trained = run.settings
    if asked.prompt != trained.prompt:
        yield f"trained with --prompt {trained.prompt}, asked with {asked.prompt}"
    else:
        several = len(run.model.classes) > 1  # the one class and all together are the same
        for field in settings_of_prompt(resolved(asked.prompt)):
            value, other = getattr(trained, field), getattr(asked, field)
            if value != other and (several or field != "prompt_class"):
                before = f"without {flag(field)}" if value is None else f"with {typed(field, value)}"
                yield f"trained {before}, asked with {other}"
    yield from fit_departures(protocol, resolved(trained.fit))
    if trained.data is None:
        yield "imported: which images chose the checkpoint is not known"
    elif not elsewhere and asked.split == protocol.checkpoint:
        yield f"the {asked.split} images that are scored chose the checkpoint: scores are too good"
    elif not elsewhere and asked.split == "train":
        yield "the images that are scored were trained on: scores are too good"
    if run.folder.base.is_file():
        yield "the unadapted model has the adapted mask decoder: the checkpoint does not hold its own"


def _find(settings: EvaluateSettings, run: FinishedRun, group: str | None) -> Found:
    """Find the samples, with masks of the run's classes, grouped as `group` says.

    Where run and data set have one class each, these are the same, whatever their names: `lesion` and
    `foreground`, say.
    """
    dataset, data = str(settings.dataset), resolved(settings.data)
    classes, values = run.model.classes, run.settings.mask_values
    try:
        return find_samples(dataset, data, classes=classes, values=values, group=group)
    except SettingError:
        found = find_samples(dataset, data, values=values, group=group)
    if len(classes) != 1 or len(found.classes) != 1:
        raise DataError(
            f"{data}: the run segments {', '.join(classes)}, the data set has {', '.join(found.classes)}"
        )
    (own,), (name,) = classes, found.classes
    samples = tuple(replace(sample, masks={own: sample.masks[name]}) for sample in found.samples)
    return replace(found, samples=samples, classes=classes)


def of_split(
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


def groups_of(samples: Sequence[Sample]) -> list[str] | None:
    """Return what each image belongs to, or None where that is not known."""
    return [sample.group for sample in samples if sample.group is not None] or None


def _regrouped(samples: Sequence[Sample], folder: Path, group: str) -> list[Sample]:
    """Return the samples that are scored with the groups that the evaluation asks for, not the training."""
    grouped, faults = assign_groups(samples, folder, group)
    if faults:
        raise DataError(fault.message for fault in faults)
    return list(grouped)
