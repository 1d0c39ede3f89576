"""Scores of a model on samples: one number an image and class, at the original size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from numpy.typing import NDArray

from samfit.data.batches import Scored, ScoredSet, join_extra, join_prompts
from samfit.frame import Frame
from samfit.metrics import count, dice, iou
from samfit.progress import track
from samfit.step import prediction_step


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, one value a class."""

    id: str
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    empty_target: tuple[bool, ...]
    """Whether the truth of the class has no foreground."""
    empty_prediction: tuple[bool, ...]


def score(truth: NDArray[np.float32], probability: NDArray[np.float32], sample_id: str) -> ImageScore:
    """Compare probabilities with truth, both (C, H, W), at a threshold of 0.5 each."""
    pairs = [(mask >= 0.5, answer >= 0.5) for mask, answer in zip(truth, probability, strict=True)]
    counts = [count(answer, mask) for mask, answer in pairs]
    return ImageScore(
        id=sample_id,
        dice=tuple(float(dice(c)) for c in counts),
        iou=tuple(float(iou(c)) for c in counts),
        empty_target=tuple(not mask.any() for mask, _ in pairs),
        empty_prediction=tuple(not answer.any() for _, answer in pairs),
    )


def means(classes: Sequence[str], scores: Sequence[ImageScore]) -> dict[str, float]:
    """Return the mean `dice` and `iou` over classes and images, then of each of several: `dice_disc`, …."""
    columns = {"dice": [score.dice for score in scores], "iou": [score.iou for score in scores]}
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
) -> Iterator[tuple[Scored, NDArray[np.float32]]]:
    """Yield each sample of `indices` with its probabilities (C, H, W) at the original size."""
    for first in range(0, len(indices), batch_size):
        items = [samples[index] for index in indices[first : first + batch_size]]
        extra = join_extra([item.inputs.extra for item in items])
        low = prediction_step(
            model,
            torch.cat([item.inputs.frame for item in items]).to(fabric.device),
            None if extra is None else extra.to(fabric.device),
            join_prompts([item.inputs.prompts for item in items]).to(fabric.device),
        )
        for item, logits in zip(items, low, strict=True):
            probability = frame.to_original(logits[None], frame.geometry(*item.image.shape[:2]))[0].sigmoid()
            yield item, probability.cpu().numpy()


def score_set(
    model: torch.nn.Module,
    frame: Frame,
    samples: ScoredSet,
    fabric: Fabric,
    batch_size: int,
    watch: Callable[[Scored, NDArray[np.float32], ImageScore], None] | None = None,
    said: str | None = None,
) -> list[ImageScore]:
    """Score every sample, shared out over all processes; each gets all scores, in the order of samples.

    `watch` is called with each sample that this process scores. `said`: what the progress is called, or None
    for none.
    """
    own = list(range(fabric.global_rank, len(samples), fabric.world_size))
    scores = {}
    answers = predict_set(model, frame, samples, own, batch_size, fabric)
    for item, probability in answers if said is None else track(answers, said, len(own)):
        result = score(item.masks, probability, item.sample.id)
        scores[result.id] = result
        if watch is not None:
            watch(item, probability, result)
    if fabric.world_size > 1:
        gathered: list[dict[str, ImageScore]] = [{} for _ in range(fabric.world_size)]
        dist.all_gather_object(gathered, scores)
        scores = {key: value for part in gathered for key, value in part.items()}
    return [scores[sample.id] for sample in samples.samples]
