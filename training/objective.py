"""SAM's own training objective (arXiv 2304.02643, section 3 and appendix A) on scenes that are drawn.

Each prompt is a click or a box with jitter. The decoder answers with three candidates, of which the best one
is learnt from, and with the single answer, which is learnt from always: here it is the answer to one click
too. Clicks on what is still wrong follow, with the answer as a mask prompt.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from canvas import Scene
from numpy.typing import NDArray
from scenes import draw_scene
from torch import Tensor

from samfit.backbones.base import Backbone
from samfit.types import BOTTOM_RIGHT, NEGATIVE, NOTHING, POSITIVE, TOP_LEFT, Prompts

DICE_WEIGHT, FOCAL_WEIGHT = 2.0, 5.0
"""How much Dice and the focal loss count beside the error of the IoU estimate. With 1 and 20, as published,
and the foreground at a third of the background's weight (arXiv 1708.02002), answers came out too small: a
lower threshold raised Dice by 0.02."""
FOCAL_GAMMA = 2.0
"""Power of the error in the focal loss."""
JITTER, LARGEST_JITTER = 0.1, 20 / 1024
"""Deviation of a box's sides in sides of the box, and the most that one moves in sides of the frame."""
_GROUP_SHARE = 0.15
"""Share of the prompts of a scene with groups that ask for one."""


@dataclass(frozen=True)
class Question:
    """What one step asks: Q prompts about B images, those of an image next to each other."""

    frame: Tensor
    """(B, 3, N, N) float32, the model frames."""
    prompts: Prompts
    """(Q, 2, ...) in pixels of the frame: a click and an empty slot, or the corners of a box."""
    truth: NDArray[np.bool_]
    """(Q, N, N): what is asked for; nothing on padding."""
    valid: NDArray[np.bool_]
    """(B, N, N): where the image is."""

    @property
    def each(self) -> int:
        """Prompts an image."""
        return len(self.truth) // len(self.frame)

    def pieces(self, images: int) -> Iterator["Question"]:
        """Yield the question in pieces of up to `images` images."""
        for number, prompts in enumerate(self.prompts.split(images * self.each)):
            of_images = slice(number * images, (number + 1) * images)
            of_prompts = slice(number * images * self.each, (number + 1) * images * self.each)
            yield Question(self.frame[of_images], prompts, self.truth[of_prompts], self.valid[of_images])


def ask(backbone: Backbone, seed: int, step: int, *, images: int, prompts: int) -> Question:
    """Draw the images of a step and `prompts` prompts about each. A function of its arguments alone."""
    rng = np.random.default_rng([seed, step, images])
    size = backbone.frame.size
    frames, points, labels = [], [], []
    truth = np.zeros((images * prompts, size, size), dtype=bool)
    valid = np.zeros((images, size, size), dtype=bool)
    for image in range(images):
        scene = draw_scene(seed, step * images + image)
        height, width = scene.image.shape[:2]
        frames.append(backbone.frame.to_model(scene.image))
        valid[image, :height, :width] = True
        for number, target in enumerate(_targets(rng, scene, prompts)):
            mask = scene.masks[target]
            truth[image * prompts + number, :height, :width] = mask
            boxed = scene.groups[target] or rng.random() < 0.5
            point, label = _box(rng, mask, size) if boxed else _click(rng, mask)
            points.append(point)
            labels.append(label)
    # A click with an empty slot is what SAM makes of a click alone, so both kinds share one batch.
    asked = Prompts(torch.tensor(np.stack(points)), torch.tensor(labels), has_box=True)
    return Question(torch.stack(frames), asked, truth, valid)


def _targets(rng: np.random.Generator, scene: Scene, number: int) -> list[int]:
    """Return the masks to ask for: large ones somewhat more often than small ones, groups now and then."""
    groups = np.flatnonzero(scene.groups)
    single = np.flatnonzero(~np.array(scene.groups))
    shares = scene.masks[single].sum(axis=(1, 2)) ** 0.25
    drawn = rng.choice(single, min(number, single.size), replace=False, p=shares / shares.sum())
    chosen = np.resize(drawn, number)
    if groups.size:
        asked = rng.random(number) < _GROUP_SHARE
        chosen[asked] = rng.choice(groups, asked.sum())
    return chosen.tolist()


def _click(rng: np.random.Generator, area: NDArray[np.bool_]) -> tuple[NDArray[np.float32], list[int]]:
    rows, columns = np.nonzero(area)
    place = rng.integers(rows.size)
    return np.array([[columns[place], rows[place]], [0, 0]], dtype=np.float32), [POSITIVE, NOTHING]


def _box(
    rng: np.random.Generator, mask: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.float32], list[int]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float32)
    most = LARGEST_JITTER * size
    moved = corners + (rng.normal(0, JITTER, (2, 2)) * (corners[1] - corners[0])).clip(-most, most)
    inside = moved.clip(0, np.array(mask.shape[::-1]) - 1)
    return np.sort(inside, axis=0).astype(np.float32), [TOP_LEFT, BOTTOM_RIGHT]


def objective(
    backbone: Backbone, question: Question, *, focal: float, rounds: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Return the named parts of a step's loss, scalars whose sum is the loss.

    `focal`: share of the focal loss in the loss of pixels, 0…1; the rest is cross-entropy, with which a model
    that knows nothing begins to learn. `rounds`: how often the decoder is asked, with a further click each
    time; the parts are means over the rounds. `rng`: draws those clicks.
    """
    embedding = backbone.encode(question.frame).repeat_interleave(question.each, 0)
    prompts = question.prompts
    side = 4 * backbone.grid
    valid = torch.from_numpy(question.valid).repeat_interleave(question.each, 0)
    seen = _smaller(valid, side)
    target = _smaller(torch.from_numpy(question.truth), side)
    totals: dict[str, Tensor] = {}
    for number in range(rounds):
        decoded = backbone.decode(embedding, prompts)
        logits = (decoded.logits if number == 0 else decoded.logits[:, :1]).float()
        pixels = pixel_loss(logits, target, seen, focal)
        dice = dice_loss(logits, target, seen)
        error = (decoded.iou[:, : logits.shape[1]] - _iou(logits, target, seen)).square()
        parts = {"pixels": pixels[:, 0], "dice": dice[:, 0], "iou": error.mean(1)}
        if number == 0:
            best = 1 + (pixels + dice)[:, 1:].argmin(1, keepdim=True)
            parts["pixels"] = parts["pixels"] + pixels.gather(1, best)[:, 0]
            parts["dice"] = parts["dice"] + dice.gather(1, best)[:, 0]
        for name, part in parts.items():
            totals[name] = totals.get(name, torch.zeros(())) + part.mean() / rounds
        if number + 1 < rounds:
            shown = 1 + decoded.iou[:, 1:].argmax(1) if number == 0 else torch.tensor(0)
            answer = logits.detach()[torch.arange(len(logits)), shown][:, None]
            prompts = corrected(backbone, prompts, answer, question, rng)
    return totals


def pixel_loss(logits: Tensor, target: Tensor, seen: Tensor, focal: float) -> Tensor:
    """Return a mix of cross-entropy and 5 times the focal loss, the mean over the image: (Q, K).

    `logits` (Q, K, L, L), `target` (Q, 1, L, L) in 0…1, `seen` (Q, 1, L, L) in 0…1, 0 on padding.
    """
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    pixels = entropy
    if focal > 0:
        probability = logits.sigmoid()
        wrong = probability + target - 2 * probability * target
        focused = FOCAL_WEIGHT * wrong**FOCAL_GAMMA * entropy
        pixels = entropy + focal * (focused - entropy)
    return (pixels * seen).sum((2, 3)) / seen.sum((2, 3))


def dice_loss(logits: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Return 2 (1 - Dice) of probabilities, smoothed by one pixel: (Q, K); shapes as in `pixel_loss`."""
    probability = logits.sigmoid() * seen
    overlap = (probability * target).sum((2, 3))
    total = probability.sum((2, 3)) + (target * seen).sum((2, 3))
    return DICE_WEIGHT * (1 - (2 * overlap + 1) / (total + 1))


@torch.no_grad()
def _iou(logits: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    answer, truth = (logits > 0) & (seen > 0.5), target >= 0.5
    union = (answer | truth).sum((2, 3))
    return (answer & truth).sum((2, 3)) / union.clamp(min=1)


def _smaller(masks: Tensor, side: int) -> Tensor:
    """Return masks (Q, N, N) as shares (Q, 1, side, side)."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), side)


def corrected(
    backbone: Backbone,
    prompts: Prompts,
    answer: Tensor,
    question: Question,
    rng: np.random.Generator,
) -> Prompts:
    """Return the prompts with a click on what is wrong in the answer (Q, 1, 4g, 4g), and with the answer.

    Where nothing is wrong the click lies on what is asked for.
    """
    shown = (backbone.frame.upsample(answer, backbone.frame.size)[:, 0] > 0).numpy()
    points, labels = [], []
    for number, (one, truth) in enumerate(zip(shown, question.truth, strict=True)):
        wrong = (one != truth) & question.valid[number // question.each]
        point, _ = _click(rng, wrong if wrong.any() else truth)
        column, row = point[0].astype(int)
        points.append(point[:1])
        labels.append([POSITIVE if truth[row, column] else NEGATIVE])
    return Prompts(
        torch.cat([torch.tensor(np.stack(points)), prompts.points], 1),
        torch.cat([torch.tensor(labels), prompts.labels], 1),
        has_box=True,
        mask=answer,
    )
