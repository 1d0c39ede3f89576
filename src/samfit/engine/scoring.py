"""Scores of a model on samples, by one or several protocols: one number an image, class and metric."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from samfit import processes
from samfit.data.batches import Scored, ScoredSet, join_present, join_prompts
from samfit.engine.memory import OneByOne, unless_memory_runs_out
from samfit.errors import RunError
from samfit.frame import Frame, Geometry
from samfit.metrics.protocols import DEFAULT, Protocol
from samfit.metrics.scores import ImageScore, score
from samfit.metrics.surfaces import Ruler
from samfit.progress import track
from samfit.step import prediction_step

logger = logging.getLogger(__name__)


def probability_of(logits: Tensor, frame: Frame, geometry: Geometry) -> NDArray[np.float32]:
    """Return the probabilities (C, H, W) that logits (C, 4g, 4g) of an image mean at its original size.

    They are made on the CPU where the device has no memory for so many pixels; raises `RunError` if the
    machine has none either.
    """

    def on(device: torch.device) -> NDArray[np.float32]:
        return frame.to_original(logits[None].to(device), geometry)[0].sigmoid().cpu().numpy()

    for device in (logits.device, torch.device("cpu")):
        found = unless_memory_runs_out(partial(on, device))
        if found is not None:
            return found
    raise RunError(
        f"out of memory while an answer was brought to the {geometry.width} x {geometry.height} pixels of "
        "its image: close other programs, or make the image smaller"
    )


@dataclass(frozen=True)
class Answer:
    """What a model answers about one image."""

    item: Scored
    logits: Tensor
    """(C, 4g, 4g)."""
    frame: Frame

    def probability(self, size: int | None = None) -> NDArray[np.float32]:
        """Return the probabilities (C, H, W) at the original size, or in a square of `size` pixels a side."""
        geometry = self.frame.geometry(*self.item.masks.shape[1:])
        if size is not None:
            geometry = replace(geometry, height=size, width=size)
        return probability_of(self.logits, self.frame, geometry)

    def truth(self, size: int | None = None) -> NDArray[np.float32]:
        """Return the masks (C, H, W) in 0…1, at the original size or averaged over the pixels of a square."""
        if size is None:
            return self.item.masks
        return replace(self.frame.at(size), fit="squeeze").target(self.item.masks)[0].numpy()


Watch = Callable[[Answer, Mapping[str, ImageScore]], None]
"""Is shown each answer and its scores, by protocol."""


def means(classes: Sequence[str], scores: Sequence[ImageScore]) -> dict[str, float]:
    """Return the mean `dice` and `iou` over classes and images, then of each of several: `dice_disc`, ….

    The scores are those of the default protocol.
    """
    columns = {name: [score.values[name] for score in scores] for name in DEFAULT.metrics}
    overall = {name: float(np.mean(values)) for name, values in columns.items()}
    if len(classes) == 1:
        return overall
    return overall | {
        f"{name}_{label}": float(np.mean([row[index] for row in values]))
        for index, label in enumerate(classes)
        for name, values in columns.items()
    }


def predict_set(
    model: torch.nn.Module,
    frame: Frame,
    samples: ScoredSet,
    indices: Sequence[int],
    batch_size: int,
    fabric: Fabric,
) -> Iterator[Answer]:
    """Yield the answer to each sample of `indices`; no more than a batch is held at once.

    A batch that memory does not suffice for is repeated with half its images, a single image in smaller
    chunks, and so is what comes after. Raises `RunError` if it does not suffice for that.
    """
    done, one_by_one = 0, OneByOne()
    while done < len(indices):
        items = [samples[index] for index in indices[done : done + batch_size]]
        answer = partial(_logits, model, items, fabric.device)
        low = one_by_one(answer) if len(items) == 1 else unless_memory_runs_out(answer)
        if low is not None:
            done += len(items)
            yield from (Answer(item, logits, frame) for item, logits in zip(items, low, strict=True))
            continue
        batch_size = len(items) // 2
        logger.warning(
            "out of memory while %d images passed the model: repeating it with %d at once",
            len(items),
            batch_size,
        )


def _logits(model: torch.nn.Module, items: Sequence[Scored], device: torch.device) -> Tensor:
    """Return the logits (B, C, 4g, 4g) of a batch."""
    inputs = [item.inputs for item in items]
    frames, extra, embedding = (
        None if tensor is None else tensor.to(device)
        for tensor in (
            join_present([one.frame for one in inputs]),
            join_present([one.extra for one in inputs]),
            join_present([one.embedding for one in inputs]),
        )
    )
    prompts = join_prompts([one.prompts for one in inputs]).to(device)
    return prediction_step(model, frames, extra, prompts, embedding)


def score_set(
    model: torch.nn.Module,
    frame: Frame,
    samples: ScoredSet,
    fabric: Fabric,
    batch_size: int,
    watch: Watch | None = None,
) -> list[ImageScore]:
    """Score every sample by the default protocol, as `score_protocols` does."""
    scores = score_protocols(model, frame, samples, fabric, batch_size, [DEFAULT], watch=watch)
    return scores[DEFAULT.name]


def score_protocols(
    model: torch.nn.Module,
    frame: Frame,
    samples: ScoredSet,
    fabric: Fabric,
    batch_size: int,
    protocols: Sequence[Protocol],
    *,
    ruler: Ruler | None = None,
    watch: Watch | None = None,
    said: str | None = None,
) -> dict[str, list[ImageScore]]:
    """Score every sample by each protocol, by its name, from one answer to the prompt that samples have.

    The samples are shared out over all processes; each gets all scores, in the order of samples. Of an image
    nothing stays but its scores. `ruler`: how borders are measured. `watch` is called with each answer of
    this process and its scores. `said`: what the progress is called, or None for none.
    """
    own = list(range(fabric.global_rank, len(samples), fabric.world_size))
    scores: dict[str, dict[str, ImageScore]] = {}
    answers = predict_set(model, frame, samples, own, batch_size, fabric)
    for answer in answers if said is None else track(answers, said, len(own)):
        name = answer.item.sample.id
        at = {
            size: (answer.truth(size), answer.probability(size)) for size in {row.size for row in protocols}
        }
        scores[name] = {row.name: score(*at[row.size], name, row, ruler) for row in protocols}
        if watch is not None:
            watch(answer, scores[name])
    if fabric.world_size > 1:
        scores = {key: value for part in processes.gathered(scores) for key, value in part.items()}
    in_order = [scores[sample.id] for sample in samples.samples]
    return {row.name: [found[row.name] for found in in_order] for row in protocols}
