"""Scores of what is no adapted SAM: the same images, protocols and files as of a run, and no prompt."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from samfit.compare.jobs import Job
from samfit.data.batches import Preparation, PromptRule, ScoredSet
from samfit.engine.evaluation import groups_of, of_split, protocols_of
from samfit.engine.pictures import Pictures
from samfit.engine.scoring import score_protocols
from samfit.engine.training import Data
from samfit.files import write_json, write_text
from samfit.frame import Frame
from samfit.metrics.protocols import Protocol
from samfit.report.scores import Scored, fit_departures, per_image_table, summarise_all
from samfit.runs import RunFolder, versions


def preparation(job: Job, data: Data, frame: Frame) -> Preparation:
    """Return how images and masks reach a model that takes no prompt."""
    return Preparation(
        classes=data.found.classes,
        reading=data.inspection.reading,
        frame=frame,
        prompt=PromptRule("none", seed=job.train.seed),
        read_extra=None,
        page=job.train.page,
    )


def write_scores(job: Job, data: Data, model: torch.nn.Module, frame: Frame, fabric: Fabric) -> None:
    """Score a model, called as an adapted one is, and write what `evaluate` writes, without a base model."""
    protocols, ruler = protocols_of(job.evaluate)
    samples = of_split(data.found.samples, job.evaluate, job.train)
    folder, classes = RunFolder(job.folder), data.found.classes
    scores = score_protocols(
        model,
        frame,
        ScoredSet(samples, preparation(job, data, frame)),
        fabric,
        job.evaluate.batch_size,
        protocols,
        ruler=ruler,
        watch=Pictures(folder.evaluation / "pictures").adapted,
        said=job.name,
    )
    evaluations = [
        Scored(
            protocol=row,
            prompt="none",
            prompt_class=None,
            departures=tuple(_departures(row, frame)),
            adapted=scores[row.name],
            unadapted=None,
        )
        for row in protocols
    ]
    write_text(folder.evaluation / "per_image.csv", per_image_table(evaluations, classes))
    summary = {
        "split": job.evaluate.split,
        "mask_reading": data.inspection.reading.describe(),
        **summarise_all(evaluations, classes, groups_of(samples)),
    }
    write_json(folder.evaluation / "summary.json", summary)


def _departures(protocol: Protocol, frame: Frame) -> Iterator[str]:
    """Yield what is not as the protocol has it."""
    if "none" not in protocol.prompts:
        yield "no prompt is used"
    yield from fit_departures(protocol, frame.fit)


def write_summary(job: Job, data: Data, cost: Mapping[str, Any]) -> None:
    """Write what is known of the training, as `train` does."""
    images = {"train": len(data.training), "validation": len(data.validation)}
    content = {**cost, "images": images, "data_fingerprint": data.fingerprint, "versions": versions()}
    write_json(RunFolder(job.folder).summary, content)
