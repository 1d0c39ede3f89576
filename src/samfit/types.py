"""Values that modules pass to each other. All are frozen; shapes and units stand with each field.

Letters used in shapes: B images, P points, C classes, N side of the model frame, g side of the grid,
L side at which the loss is taken, H and W height and width of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tables and the command line use this module without loading torch
    import torch
    from torch import Tensor

NOTHING, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Labels of prompt points. The last two are the corners of a box."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set with its masks, as paths; nothing has been read yet."""

    id: str
    """Unique within its split; names the sample in every table, and its predictions."""
    split: str
    """`train`, `validation` or `test`, as the source has it."""
    image: Path
    masks: dict[str, tuple[Path, ...]]
    """Class name to its mask files, one a rater. Classes told apart by grey value share one file."""
    group: str | None = None
    """What it shares with images that are like it, a patient say (`--group`), or None if nobody said."""


@dataclass(frozen=True)
class Prompts:
    """One prompt an image, in fixed shapes: clicks, corners of a box, or both; maybe a mask.

    Coordinates are (x, y) in pixels of the original image or of the model frame, as the holder says.
    Slots that hold nothing have the label `NOTHING`; their coordinates carry no meaning.
    """

    points: Tensor
    """(B, P, 2) float32."""
    labels: Tensor
    """(B, P) int64: `NOTHING`, `NEGATIVE`, `POSITIVE`, `TOP_LEFT` or `BOTTOM_RIGHT`."""
    has_box: bool
    """Whether the last two slots are the corners of a box. A property of the prompt kind, not of an image."""
    mask: Tensor | None = None
    """(B, 1, 4g, 4g) float32 logits of an earlier answer, or None."""

    def to(self, device: torch.device | str) -> Prompts:
        """Return the prompts with every tensor on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, points=self.points.to(device), labels=self.labels.to(device), mask=mask)

    def split(self, count: int) -> list[Prompts]:
        """Return the prompts of `count` images each, the last ones of fewer, as tensors are split."""
        parts = [slice(start, start + count) for start in range(0, len(self.points), count)]
        return [
            replace(
                self,
                points=self.points[part],
                labels=self.labels[part],
                mask=None if self.mask is None else self.mask[part],
            )
            for part in parts
        ]


@dataclass(frozen=True)
class Batch:
    """What one training or prediction step sees, in fixed shapes: model frames, or embeddings instead."""

    frame: Tensor | None
    """(B, 3, N, N) float32, the normalised and padded model frame."""
    prompts: Prompts
    """In pixels of the model frame."""
    extra: Tensor | None
    """What the method reads beside the embedding (`MethodRow.reader`), or None."""
    target: Tensor
    """(B, C, L, L) float32 in 0…1."""
    valid: Tensor
    """(B, 1, L, L) float32: 1 on the image, 0 on padding."""
    weight: Tensor
    """(B,) float32: share of each image in the loss of the optimizer step. The shares of all images of a
    step add up to 1 over all processes; an image that only keeps a process busy has share 0."""
    embedding: Tensor | None = None
    """(B, E, g, g) what the encoder made of the frames, where it was kept."""

    def split(self, count: int) -> list[Batch]:
        """Return batches of `count` images each, the last one of fewer, as tensors are split."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[part]

        batches = []
        for number, prompts in enumerate(self.prompts.split(count)):
            part = slice(number * count, (number + 1) * count)
            batches.append(
                Batch(
                    frame=cut(self.frame),
                    prompts=prompts,
                    extra=cut(self.extra),
                    target=self.target[part],
                    valid=self.valid[part],
                    weight=self.weight[part],
                    embedding=cut(self.embedding),
                )
            )
        return batches

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with every tensor on `device`."""
        return Batch(
            frame=None if self.frame is None else self.frame.to(device),
            prompts=self.prompts.to(device),
            extra=None if self.extra is None else self.extra.to(device),
            target=self.target.to(device),
            valid=self.valid.to(device),
            weight=self.weight.to(device),
            embedding=None if self.embedding is None else self.embedding.to(device),
        )


@dataclass(frozen=True)
class StepResult:
    """Loss of one step and what it is made of."""

    loss: Tensor
    """Scalar: the sum of all parts, each image weighted by its share."""
    parts: dict[str, Tensor]
    """Name to detached scalar, weighted alike."""
    logits: Tensor
    """(B, C, L, L) float32, detached."""
