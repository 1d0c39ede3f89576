"""SAM's own training objective (arXiv 2304.02643, section 3 and appendix A) on scenes that are drawn.

Each prompt is a click or a box with jitter. The decoder answers with three candidates, of which the best one
is learnt from, and with the single answer, which is learnt from always: here it is the answer to one click
too. Clicks on what is still wrong follow, with the answer as a mask prompt.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from canvas import SIDE, Scene
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
MOST_ROUNDS = 3
"""How often the decoder is asked at most, each time but the first with a further click."""
APART = 15
"""Steps after which a scene is shown again, if it is: with as many processes that draw, each has its own."""
_GROUP_SHARE = 0.15
"""Share of the prompts of a scene with groups that ask for one."""


@dataclass(frozen=True)
class Question:
    """What one step asks: Q prompts about B images, those of an image next to each other.

    The images lie in the upper left of squares of N = `SIDE` pixels, as in the model frame.
    """

    images: Tensor
    """(B, N, N, 3) uint8; nothing on padding."""
    valid: Tensor
    """(B, N, N) bool: where the image is."""
    prompts: Prompts
    """(Q, 2, ...) in pixels of the frame: a click and an empty slot, or the corners of a box."""
    truth: Tensor
    """(Q, N, N) bool: what is asked for; nothing on padding."""
    chances: Tensor
    """(Q, `MOST_ROUNDS` - 1) float32 in 0…1: which of the pixels that are wrong the corrections click on."""

    @property
    def each(self) -> int:
        """Prompts an image."""
        return len(self.truth) // len(self.images)

    def frame(self, backbone: Backbone) -> Tensor:
        """Return the normalised model frames (B, 3, N, N)."""
        mean, std = (
            _constant(values, self.images.device) for values in (backbone.frame.mean, backbone.frame.std)
        )
        return ((self.images - mean) / std * self.valid[..., None]).permute(0, 3, 1, 2)

    def pieces(self, images: int) -> Iterator["Question"]:
        """Yield the question in pieces of up to `images` images."""
        asked = images * self.each
        yield from map(
            Question,
            self.images.split(images),
            self.valid.split(images),
            self.prompts.split(asked),
            self.truth.split(asked),
            self.chances.split(asked),
        )

    def to(self, device: torch.device) -> "Question":
        """Return the question with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Question":
        """Return the question in memory from which a GPU copies while the processor goes on."""
        return self._map(Tensor.pin_memory)

    def copy(self) -> "Question":
        """Return a question whose tensors have memory of their own."""
        return self._map(Tensor.clone)

    def become(self, other: "Question") -> None:
        """Write another question of the same shapes into the tensors of this one."""
        for own, given in zip(self._tensors(), other._tensors(), strict=True):
            own.copy_(given)

    def _tensors(self) -> list[Tensor]:
        asked = self.prompts
        return [self.images, self.valid, asked.points, asked.labels, self.truth, self.chances]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Question":
        images, valid, points, labels, truth, chances = map(change, self._tensors())
        return Question(images, valid, Prompts(points, labels, has_box=True), truth, chances)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor that is made once: none may be while a GPU's step is recorded."""
    return torch.tensor(values, device=device)


def ask(seed: int, step: int, *, images: int, prompts: int, views: int = 1) -> Question:
    """Draw the images of a step and `prompts` prompts about each. A function of its arguments alone.

    `views`: how many steps show each scene, turned and mirrored at random, `APART` steps one after the other.
    """
    rng = np.random.default_rng([seed, step, images])
    points, labels = [], []
    pixels = np.zeros((images, SIDE, SIDE, 3), dtype=np.uint8)
    truth = np.zeros((images * prompts, SIDE, SIDE), dtype=bool)
    valid = np.zeros((images, SIDE, SIDE), dtype=bool)
    shown_first = step if views == 1 else step // (views * APART) * APART + step % APART
    for image, scene in enumerate(_scenes(seed, shown_first * images, images)):
        if views > 1:
            scene = turned(scene, int(rng.integers(8)))
        height, width = scene.image.shape[:2]
        pixels[image, :height, :width] = scene.image
        valid[image, :height, :width] = True
        for number, target in enumerate(_targets(rng, scene, prompts)):
            mask = scene.masks[target]
            truth[image * prompts + number, :height, :width] = mask
            boxed = scene.groups[target] or rng.random() < 0.5
            point, label = _box(rng, mask) if boxed else _click(rng, mask)
            points.append(point)
            labels.append(label)
    return Question(
        torch.from_numpy(pixels),
        torch.from_numpy(valid),
        # A click with an empty slot is what SAM makes of a click alone, so both kinds share one batch.
        Prompts(torch.tensor(np.stack(points)), torch.tensor(labels), has_box=True),
        torch.from_numpy(truth),
        torch.from_numpy(rng.random((len(truth), MOST_ROUNDS - 1), dtype=np.float32)),
    )


@lru_cache(maxsize=APART)
def _scenes(seed: int, first: int, number: int) -> list[Scene]:
    """Draw scenes in a row, or return them as they were drawn before: steps soon after may show them too."""
    return [draw_scene(seed, first + index) for index in range(number)]


def turned(scene: Scene, way: int) -> Scene:
    """Return a scene turned by quarters and mirrored, in one of eight ways: 0 leaves it as it is."""
    quarters, mirrored = divmod(way, 2)
    image, masks = np.rot90(scene.image, quarters), np.rot90(scene.masks, quarters, axes=(1, 2))
    if mirrored:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return replace(scene, image=image, masks=masks)


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


def _box(rng: np.random.Generator, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], list[int]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float32)
    most = LARGEST_JITTER * SIDE
    moved = corners + (rng.normal(0, JITTER, (2, 2)) * (corners[1] - corners[0])).clip(-most, most)
    inside = moved.clip(0, np.array(mask.shape[::-1]) - 1)
    return np.sort(inside, axis=0).astype(np.float32), [TOP_LEFT, BOTTOM_RIGHT]


def objective(
    backbone: Backbone, question: Question, *, focal: float | Tensor, rounds: int
) -> dict[str, Tensor]:
    """Return the named parts of a step's loss, scalars whose sum is the loss.

    `focal`: share of the focal loss in the loss of pixels, 0…1; the rest is cross-entropy, with which a model
    that knows nothing begins to learn. `rounds`: how often the decoder is asked, with a further click each
    time; the parts are means over the rounds.
    """
    embedding = backbone.encode(question.frame(backbone)).repeat_interleave(question.each, 0)
    prompts = question.prompts
    side = 4 * backbone.grid
    seen = _smaller(question.valid, side).repeat_interleave(question.each, 0)
    target = _smaller(question.truth, side)
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
            totals[name] = totals.get(name, 0.0) + part.mean() / rounds
        if number + 1 < rounds:
            answer = logits.detach()
            if number == 0:
                likely = 1 + decoded.iou[:, 1:].argmax(1)
                answer = answer.take_along_dim(likely[:, None, None, None], 1)
            prompts = corrected(backbone, prompts, answer, question, number)
    return totals


def pixel_loss(logits: Tensor, target: Tensor, seen: Tensor, focal: float | Tensor) -> Tensor:
    """Return a mix of cross-entropy and 5 times the focal loss, the mean over the image: (Q, K).

    `logits` (Q, K, L, L), `target` (Q, 1, L, L) in 0…1, `seen` (Q, 1, L, L) in 0…1, 0 on padding.
    """
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
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
    backbone: Backbone, prompts: Prompts, answer: Tensor, question: Question, number: int
) -> Prompts:
    """Return the prompts with a click on what is wrong in the answer (Q, 1, 4g, 4g), and with the answer.

    Where nothing is wrong the click lies on what is asked for. `number`: of the correction, from 0.
    """
    truth = question.truth
    shown = backbone.frame.upsample(answer, backbone.frame.size)[:, 0] > 0
    wrong = (shown != truth) & question.valid.repeat_interleave(question.each, 0)
    area = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, truth).flatten(1)
    counted = area.cumsum(1, dtype=torch.int32)
    chosen = (question.chances[:, number, None] * counted[:, -1:]).int()
    place = (counted <= chosen).sum(1, keepdim=True)
    points = torch.stack([place % SIDE, place // SIDE], -1).float()
    labels = torch.where(truth.flatten(1).gather(1, place), POSITIVE, NEGATIVE)
    return Prompts(
        torch.cat([points, prompts.points], 1),
        torch.cat([labels, prompts.labels], 1),
        has_box=True,
        mask=answer,
    )
