"""The contract of a backbone: stations from the original image to logits at its size, and places to adapt."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from samfit.backbones.attention import GridAttention
from samfit.backbones.card import BackboneCard
from samfit.backbones.chunks import limits
from samfit.frame import Frame
from samfit.settings import AttentionKind
from samfit.types import Prompts

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
"""The three parts of every backbone, in the words of the field."""


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder answers to one prompt an image: the single answer, then its candidates."""

    logits: Tensor
    """(B, K, 4g, 4g), K = 4 as published."""
    iou: Tensor
    """(B, K): the decoder's own estimate of each mask's IoU."""


class BlockAdapter:
    """What a method adds to one encoder block: four places, each of which returns what it was given here.

    A subclass may be a module or not. Tokens are (B, g, g, width) or (B, g², width), as the backbone has
    them; `shared` is what `EncoderAdapter.shared` made of the image, with the same leading dimensions.
    """

    def before(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
        """Return the tokens that enter the block."""
        return tokens

    def after_attention(self, attended: Tensor) -> Tensor:
        """Return what attention gave (…, width), inside the window, before it is added to the tokens."""
        return attended

    def beside_mlp(self, mapped: Tensor, normed: Tensor) -> Tensor:
        """Return what the MLP made (…, width) of `normed` (…, width), before it is added to the tokens."""
        return mapped

    def after(self, tokens: Tensor, shared: Tensor | None) -> Tensor:
        """Return the tokens that leave the block."""
        return tokens


class EncoderAdapter:
    """What a method adds inside the encoder; here nothing."""

    def shared(self, frame: Tensor, tokens: Tensor) -> Tensor | None:
        """Return what every block's adapter reads, from the model frame (B, 3, N, N) and the first tokens.

        The tokens are those that enter block 0.
        """
        return None

    def block(self, index: int) -> BlockAdapter:
        """Return what is added to block `index`."""
        return UNCHANGED


UNCHANGED = BlockAdapter()
"""Adds nothing to a block."""
UNADAPTED = EncoderAdapter()
"""Adds nothing to the encoder."""
PATCH_EMBEDDING = -1
"""The place before block 0, for `gradient_from`."""

ResultT = TypeVar("ResultT")


def run(checkpointing: bool, function: Callable[..., ResultT], *inputs: object) -> ResultT:
    """Return `function(*inputs)`; with `checkpointing` keep the inputs alone and run it again in backward.

    Tensors that a gradient goes to must be among the inputs, or be parameters.
    """
    if not (checkpointing and torch.is_grad_enabled()):
        return function(*inputs)
    # No method draws numbers in the parts that are run again, so the random state need not be kept.
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


class Backbone(nn.Module, ABC):
    """Image encoder, prompt encoder and mask decoder with base weights, at one image size.

    The way of an image: `frame.to_model` (preprocess) → `encode` → `decode` → `frame.to_original`
    (postprocess). `encode` is `embed`, every block in turn, `neck`.
    """

    def __init__(self, card: BackboneCard, frame: Frame):
        super().__init__()
        self.card = card
        self.frame = frame
        self.variant: str | None = None
        """The published training code that builds it so (`card.variants`); set by `load_backbone`."""
        self.weights_hash = ""
        """SHA-256 of the base weights as loaded, 64 hexadecimal digits; set by `load_backbone`."""
        self.weights_from: tuple[str, int] = ("", 0)
        """What `load_backbone` was given: the weights and the seed of random ones."""

    @property
    def grid(self) -> int:
        """Side of the embedding: one cell for `card.patch` pixels of the frame."""
        return self.frame.size // self.card.patch

    @property
    def images_at_once(self) -> int:
        """How many images pass together where each is on its own: one of 1024 px, or several smaller ones.

        Fewer where `chunks.limited` says so.
        """
        count = self.card.images_at_once(self.frame.size)
        return min(count, limits().images or count)

    def encode(
        self,
        frame: Tensor,
        adapter: EncoderAdapter = UNADAPTED,
        *,
        gradient_from: int | None = PATCH_EMBEDDING,
        checkpointing: bool = False,
    ) -> Tensor:
        """Turn model frames (B, 3, N, N) into embeddings (B, E, g, g), E = `card.embedding_width`.

        `adapter`: what is added inside. `gradient_from`: the first block that keeps anything for backward, or
        None if no part of the encoder does; what comes before runs without gradient. `checkpointing`: keep
        the input of each block and of the neck alone and run them again in backward.

        Where no gradient reaches the encoder, `images_at_once` pass it together, so that it takes no more
        memory for many images than for one. Where one does, all of them do, unless `chunks.limited` lets
        fewer: then each group keeps its frames alone and is encoded again in backward.
        """
        reached = torch.is_grad_enabled() and gradient_from is not None
        at_once = (limits().images or len(frame)) if reached else self.images_at_once
        if len(frame) > at_once:
            encode = partial(
                self.encode, adapter=adapter, gradient_from=gradient_from, checkpointing=checkpointing
            )
            return torch.cat([run(reached, encode, part) for part in frame.split(at_once)])
        first = self.card.depth if gradient_from is None else gradient_from
        with torch.set_grad_enabled(reached and first == PATCH_EMBEDDING):
            tokens = self.embed(frame)
        with torch.set_grad_enabled(reached):
            shared = adapter.shared(frame, tokens)
        if shared is not None and not (reached and first <= 0):
            tokens = tokens.clone()  # blocks without gradient overwrite them, and `shared` may need them
        for index, block in enumerate(self.blocks):
            with torch.set_grad_enabled(reached and index >= first):
                tokens = run(checkpointing, block, tokens, adapter.block(index), shared)
        with torch.set_grad_enabled(reached):
            return run(checkpointing, self.neck, tokens)

    def attend(self, kind: AttentionKind) -> None:
        """Let every block of the encoder compute its attention so; see `samfit.backbones.attention`."""
        for module in self.modules():
            if isinstance(module, GridAttention):
                module.kind = kind

    @abstractmethod
    def embed(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into the tokens that enter the first block, positions included.

        They are the caller's to overwrite, and contiguous.
        """

    @abstractmethod
    def neck(self, tokens: Tensor) -> Tensor:
        """Turn the tokens that leave the last block into embeddings (B, E, g, g)."""

    @abstractmethod
    def decode(self, embedding: Tensor, prompts: Prompts) -> Decoded:
        """Answer one prompt an image, given in pixels of the model frame, with low-resolution logits."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's blocks in order; `len(blocks) == card.depth`.

        Each maps (tokens, `BlockAdapter`, shared) to tokens, and holds the linear layers `attn.qkv` (queries,
        keys and values in one), `attn.proj` and those of `mlp`. Without gradient it overwrites the tokens.
        """

    def before_block(self, index: int) -> set[str]:
        """Return the names of the encoder's parameters that lie before block `index`."""
        if index == PATCH_EMBEDDING:
            return set()
        later = {id(parameter) for block in self.blocks[index:] for parameter in block.parameters()}
        return {
            name
            for name, parameter in self.named_parameters()
            if name.startswith("image_encoder.")
            and not name.startswith("image_encoder.neck.")
            and id(parameter) not in later
        }

    @abstractmethod
    def add_masks(self, count: int) -> None:
        """Give the mask decoder masks until it has `count`, as copies of its candidates 1, 2, 3 in turn."""

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

    def hub_config(self) -> str | None:
        """Return the hub's `config.json` for this module, or None where transformers has no such model."""
        return None

    @abstractmethod
    def fit_positions(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `state` (this module's names) with position tables of the published size made for this one.

        Every other tensor is returned as it is; at the published image size nothing changes. Raises
        `WeightsError` for a position table that cannot be made to fit.
        """
