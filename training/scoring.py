"""How well a backbone answers a box or one click: on scenes that were never trained on, and on data sets."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scenes import draw_scene

from samfit.backbones.base import Backbone
from samfit.data.batches import to_prompts
from samfit.data.prompts import has_box, make_prompt, prompt_seed
from samfit.data.reading import decide_reading, mask_levels, read_image, read_masks
from samfit.data.sources import find_samples
from samfit.metrics.counts import count, dice

HELD_OUT = 20_230_405
"""Seed of the scenes that models are scored on; no run may train on it."""
ANSWERS = ("box", "click", "click_single", "middle")
"""What is scored: the single answer to the exact box of a mask; to one click, a random pixel of it, the
candidate with the highest estimate (SAM's usual choice), and the single answer; that candidate for a click on
the pixel that is farthest from the mask's border, which is how SAM was scored (arXiv 2304.02643, 7.1)."""

Scores = dict[str, list[float]]
"""Answer to its Dice, one number a mask."""


def scene_scores(backbone: Backbone, number: int) -> dict[tuple[str, str], Scores]:
    """Return the Dice on the first `number` held-out scenes, by family and kind: whole, part or group.

    Of each scene up to four masks are asked for, at random, in pixels of the scene. Groups are asked for with
    a box alone.
    """
    scores: dict[tuple[str, str], Scores] = {}
    for place in range(number):
        scene = draw_scene(HELD_OUT, place)
        rng = np.random.default_rng([HELD_OUT, place])
        chosen = rng.permutation(len(scene.masks))[:4]
        asked = masks_scores(backbone, scene.image, scene.masks[chosen].astype(np.float32), f"scene {place}")
        for target, answers in zip(chosen, asked, strict=True):
            kind = "group" if scene.groups[target] else "part" if scene.part_of[target] >= 0 else "whole"
            for answer in ANSWERS if kind != "group" else ("box",):
                scores.setdefault((scene.family, kind), {}).setdefault(answer, []).append(answers[answer])
    return scores


def data_scores(
    backbone: Backbone, folder: Path, dataset: str, values: dict[str, int] | None = None
) -> dict[str, Scores]:
    """Return the Dice on every image of a data set, by class; masks without foreground are left out.

    `dataset`: its layout. `values`: class to grey value where classes share one mask.
    """
    found = find_samples(dataset, folder, values=values)
    paths = {path for sample in found.samples for paths in sample.masks.values() for path in paths}
    reading = decide_reading(map(mask_levels, sorted(paths)), found.values)
    scores: dict[str, Scores] = {name: {} for name in found.classes}
    for sample in found.samples:
        masks = read_masks(sample, reading, found.classes)
        there = [index for index, mask in enumerate(masks) if (mask >= 0.5).any()]
        asked = masks_scores(backbone, read_image(sample.image), masks[there], sample.id)
        for index, answers in zip(there, asked, strict=True):
            for answer, score in answers.items():
                scores[found.classes[index]].setdefault(answer, []).append(score)
    return scores


@torch.no_grad()
def masks_scores(
    backbone: Backbone, image: NDArray[np.uint8], masks: NDArray[np.float32], name: str
) -> Iterator[dict[str, float]]:
    """Yield, for each mask (C, H, W) of an image (H, W, 3), every answer's Dice at the image's own size.

    `name`: the clicks are drawn from it.
    """
    frame = backbone.frame
    geometry = frame.geometry(*image.shape[:2])
    embedding = backbone.encode(frame.to_model(image)[None])
    for mask in masks:
        scores = {}
        for kind, asked in (("box", mask), ("click", mask), ("middle", _middle(mask))):
            prompt = "click" if kind == "middle" else kind
            rng = np.random.default_rng(prompt_seed(0, name, None))
            points, labels = make_prompt(prompt, asked, geometry.height, geometry.width, rng)
            decoded = backbone.decode(embedding, to_prompts(points, labels, has_box(prompt), frame, geometry))
            answers = (frame.to_original(decoded.logits, geometry)[0] >= 0).numpy()
            by_answer = [float(dice(count(answer, mask >= 0.5))) for answer in answers]
            best = by_answer[1 + int(decoded.iou[0, 1:].argmax())]
            scores[kind] = by_answer[0] if kind == "box" else best
            if kind == "click":
                scores["click_single"] = by_answer[0]
        yield scores


def _middle(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a mask (H, W) of the one pixel of `mask` that is farthest from its border and the image's."""
    inside = np.pad((mask >= 0.5).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    middle = np.zeros_like(mask)
    middle[np.unravel_index(depth.argmax(), depth.shape)] = 1
    return middle


def pooled(scores: Iterable[Scores]) -> Scores:
    """Return the scores of all masks, of whatever kind or class."""
    together: Scores = {}
    for one in scores:
        for answer, values in one.items():
            together.setdefault(answer, []).extend(values)
    return together


def means(scores: Iterable[Scores]) -> dict[str, float]:
    """Return the mean of each answer over all masks, of whatever kind or class."""
    return {answer: float(np.mean(values)) for answer, values in pooled(scores).items()}
