"""The contract of a backbone: five stations, from the original image to logits at its size."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from samfit.backbones.card import BackboneCard
from samfit.frame import Frame
from samfit.types import Prompts

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
"""The three parts of every backbone, in the words of the field."""


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder answers to one prompt an image."""

    logits: Tensor
    """(B, K, 4g, 4g): one mask (K = 1), or three candidates (K = 3) for `multimask`."""
    iou: Tensor
    """(B, K): the decoder's own estimate of each mask's IoU."""


class Backbone(nn.Module, ABC):
    """Image encoder, prompt encoder and mask decoder with base weights, at one image size.

    The way of an image: `frame.to_model` (preprocess) → `encode` → `decode` → `frame.to_original`
    (postprocess).
    """

    def __init__(self, card: BackboneCard, frame: Frame):
        super().__init__()
        self.card = card
        self.frame = frame
        self.weights_hash = ""
        """SHA-256 of the base weights as loaded, 64 hexadecimal digits; set by `load_backbone`."""
        self.weights_from: tuple[str, int] = ("", 0)
        """What `load_backbone` was given: the weights and the seed of random ones."""

    @property
    def grid(self) -> int:
        """Side of the embedding: one cell for `card.patch` pixels of the frame."""
        return self.frame.size // self.card.patch

    @abstractmethod
    def encode(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into embeddings (B, E, g, g), E = `card.embedding_width`."""

    @abstractmethod
    def decode(self, embedding: Tensor, prompts: Prompts, multimask: bool = False) -> Decoded:
        """Answer one prompt an image, given in pixels of the model frame, with low-resolution logits."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's blocks in order; `len(blocks) == card.depth`."""

    @abstractmethod
    def part(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one of `PARTS` by their full name in this module.

        A head that no loss reaches (the estimate of the IoU) and constants that a library stores as
        parameters (the random matrix of the positional encoding) belong to no part: they are never trained.
        """

    @abstractmethod
    def published_names(self) -> dict[str, str]:
        """Return for every tensor of this module's state dict its name in the published file."""

    def hub_names(self) -> dict[str, str]:
        """Return for every tensor of this module's state dict its name in the hub's file, or nothing."""
        return {}

    @abstractmethod
    def fit_positions(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `state` (this module's names) with position tables of the published size made for this one.

        Every other tensor is returned as it is; at the published image size nothing changes. Raises
        `WeightsError` for a position table that has not the published shape.
        """
