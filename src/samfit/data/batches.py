"""From samples to batches: reading, augmentation, prompts and the way into the model frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from samfit.data.order import Draw
from samfit.data.prompts import has_box, make_prompt, prompt_seed
from samfit.data.reading import MaskReading, read_image, read_masks
from samfit.data.shown import Shown, augmentation_rng, view_of
from samfit.data.transforms import UNMOVED, Augmentation, draw_matrix, warp_image, warp_masks
from samfit.frame import Frame, Geometry
from samfit.settings import PromptKind
from samfit.types import Batch, Prompts, Sample

ImageReader = Callable[[NDArray[np.uint8], Frame], Tensor]
"""What a method reads of an original image (H, W, 3) beside the embedding."""

_DECODED_BYTES = 512 * 1024**2
"""Decoded images are kept up to here, so that small data sets are read from disk once."""


@dataclass(frozen=True)
class PromptRule:
    """How prompts are derived from masks."""

    kind: PromptKind
    clicks: int = 1
    negative_clicks: int = 0
    box_jitter: int = 0
    seed: int = 0
    of_class: str | None = None
    """The class that a click or box is taken from, or None for all classes together."""

    def make(
        self, sample_id: str, epoch: int | None, mask: NDArray[np.float32] | None, height: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return points (P, 2) in original pixels and labels (P,), the same for the same arguments.

        `epoch`: None in evaluation, where every evaluation asks the same. `mask`: (H, W), what is asked for.
        """
        rng = np.random.default_rng(prompt_seed(self.seed, sample_id, epoch))
        return make_prompt(
            self.kind,
            mask,
            height,
            width,
            rng,
            clicks=self.clicks,
            negative_clicks=self.negative_clicks,
            box_jitter=self.box_jitter,
        )


def to_prompts(
    points: NDArray[np.float32], labels: NDArray[np.int64], box: bool, frame: Frame, geometry: Geometry
) -> Prompts:
    """Turn one prompt in original pixels into a batch of one in pixels of the model frame."""
    mapped = frame.points_to_model(torch.from_numpy(points), geometry)
    return Prompts(mapped[None].float(), torch.from_numpy(labels)[None], has_box=box)


@dataclass(frozen=True)
class Inputs:
    """One image as the model reads it, as a batch of one."""

    frame: Tensor | None
    """(1, 3, N, N), or None where the embedding was kept."""
    extra: Tensor | None
    """(1, …) what the method reads beside the embedding."""
    prompts: Prompts
    """In pixels of the model frame."""
    embedding: Tensor | None = None
    """(1, E, g, g), where it was kept."""


@dataclass(frozen=True)
class Preparation:
    """How samples become what a model reads; the same in training and in scoring."""

    classes: Sequence[str]
    reading: MaskReading
    frame: Frame
    prompt: PromptRule
    read_extra: ImageReader | None
    page: int | None = None
    embedded: bool = False
    """Whether embeddings were kept, so that no model frame is made."""

    @property
    def sees_image(self) -> bool:
        """Whether anything is made of an image beside its masks."""
        return not self.embedded or self.read_extra is not None

    def inputs(
        self,
        sample_id: str,
        epoch: int | None,
        image: NDArray[np.uint8] | None,
        masks: NDArray[np.float32],
    ) -> Inputs:
        """Bring an image (H, W, 3) into the model frame, with the prompt that its masks (C, H, W) give.

        The image may be None unless `sees_image`.
        """
        height, width = masks.shape[1:]
        points, labels = self.prompt.make(sample_id, epoch, self._asked_for(masks), height, width)
        geometry = self.frame.geometry(height, width)
        return Inputs(
            frame=None if self.embedded else self.frame.to_model(_there(image))[None],
            extra=None if self.read_extra is None else self.read_extra(_there(image), self.frame)[None],
            prompts=to_prompts(points, labels, has_box(self.prompt.kind), self.frame, geometry),
        )

    def _asked_for(self, masks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the one of the masks (C, H, W), or their union, that a prompt is taken from: (H, W)."""
        name = self.prompt.of_class
        return masks.max(axis=0) if name is None else masks[self.classes.index(name)]


def _there(image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    assert image is not None, "the image is needed"
    return image


class _Decoded:
    """Reads images, if they are needed, and masks, and remembers as many as fit."""

    def __init__(self, samples: Sequence[Sample], preparation: Preparation, *, images: bool = True):
        self.samples, self.preparation, self.images = samples, preparation, images
        self._kept: dict[int, tuple[NDArray[np.uint8] | None, NDArray[np.float32]]] = {}
        self._free = _DECODED_BYTES

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32]]:
        """Return the image (H, W, 3), or None if images are not needed, and its masks (C, H, W)."""
        if index in self._kept:
            return self._kept[index]
        sample = self.samples[index]
        image = read_image(sample.image, self.preparation.page) if self.images else None
        masks = read_masks(sample, self.preparation.reading, self.preparation.classes)
        in_worker = get_worker_info() is not None  # which ends with its epoch, and what it keeps with it
        size = masks.nbytes + (0 if image is None else image.nbytes)
        if not in_worker and size <= self._free:
            self._free -= size
            self._kept[index] = image, masks
        return image, masks


class TrainingSet(Dataset[Batch]):
    """Training samples as batches of one, each a function of seed, epoch and sample.

    Where embeddings were kept, a batch comes without frame and embedding: the latter is to be looked up by
    what `shown` returns, in the process that holds them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preparation: Preparation,
        *,
        loss_size: int,
        augment: Augmentation,
    ):
        self.samples, self.preparation = samples, preparation
        self.decoded = _Decoded(samples, preparation, images=preparation.sees_image)
        self.loss_frame = preparation.frame.at(loss_size)
        self.augment: Augmentation = augment

    def shown(self, draw: Draw) -> Shown:
        """Return what the encoder sees in a draw. Raises `ValueError` if that is no fixed view."""
        sample, seed = self.samples[draw.index], self.preparation.prompt.seed
        return Shown(sample.image, view_of(self.augment, seed, sample.id, draw.epoch))

    def __getitem__(self, draw: Draw) -> Batch:
        """Return the batch of one image, augmented as its epoch says."""
        image, masks = self.decoded[draw.index]
        sample_id = self.samples[draw.index].id
        if self.augment != "none":
            rng = augmentation_rng(self.preparation.prompt.seed, sample_id, draw.epoch)
            height, width = masks.shape[1:]
            matrix, height, width = draw_matrix(self.augment, height, width, rng)
            image = None if image is None else warp_image(image, matrix, height, width)
            masks = warp_masks(masks, matrix, height, width)
        inputs = self.preparation.inputs(sample_id, draw.epoch, image, masks)
        target, valid = self.loss_frame.target(masks)
        return Batch(
            frame=inputs.frame,
            prompts=inputs.prompts,
            extra=inputs.extra,
            target=target[None],
            valid=valid[None],
            weight=torch.tensor([draw.share]),
        )


@dataclass(frozen=True)
class Scored:
    """One image to be scored, with its truth at the original size."""

    sample: Sample
    image: NDArray[np.uint8]
    """(H, W, 3)."""
    masks: NDArray[np.float32]
    """(C, H, W), 0…1."""
    inputs: Inputs


class ScoredSet(Dataset[Scored]):
    """Samples as they are scored: not augmented, with the same prompt every time.

    `embedding_of`: looks up what was kept, if embeddings were (`Preparation.embedded`).
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preparation: Preparation,
        embedding_of: Callable[[Shown], Tensor] | None = None,
    ):
        self.samples, self.preparation, self.embedding_of = samples, preparation, embedding_of
        self.decoded = _Decoded(samples, preparation)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Scored:
        """Return one image with prompt and truth."""
        image, masks = self.decoded[index]
        sample = self.samples[index]
        inputs = self.preparation.inputs(sample.id, None, image, masks)
        if self.embedding_of is not None:
            inputs = replace(inputs, embedding=self.embedding_of(Shown(sample.image, UNMOVED)))
        return Scored(sample, _there(image), masks, inputs)


def join_prompts(prompts: Sequence[Prompts]) -> Prompts:
    """Put prompts of one kind into one batch."""
    return Prompts(
        torch.cat([prompt.points for prompt in prompts]),
        torch.cat([prompt.labels for prompt in prompts]),
        prompts[0].has_box,
    )


def join_present(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Put what all images of a batch have, or none of them, into one tensor or None."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None


def join(batches: Sequence[Batch]) -> Batch:
    """Put batches into one."""
    return Batch(
        frame=join_present([batch.frame for batch in batches]),
        prompts=join_prompts([batch.prompts for batch in batches]),
        extra=join_present([batch.extra for batch in batches]),
        target=torch.cat([batch.target for batch in batches]),
        valid=torch.cat([batch.valid for batch in batches]),
        weight=torch.cat([batch.weight for batch in batches]),
        embedding=join_present([batch.embedding for batch in batches]),
    )
