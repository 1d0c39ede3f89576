"""A backbone with a method attached: what is trained, what stays frozen, and how it can be switched off."""

import contextlib
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from samfit.backbones.base import UNADAPTED, Backbone, run
from samfit.methods.row import MethodRow
from samfit.options import MethodOptions
from samfit.types import Prompts


class AdaptedModel(nn.Module):
    """A frozen backbone, the modules that a method adds, and the parts of the backbone that it trains."""

    def __init__(
        self,
        backbone: Backbone,
        row: MethodRow,
        *,
        classes: tuple[str, ...],
        options: MethodOptions,
        seed: int = 0,
    ):
        super().__init__()
        self.row = row
        self.options = options
        self.classes = classes
        self.gradient_from = row.first_block(options, backbone.card)
        self.checkpointing = False
        """Whether the encoder's blocks, its neck and the mask decoder are run again in backward instead of
        keeping what they computed."""
        self.backbone = backbone
        backbone.add_masks(self.masks.stop)
        backbone.requires_grad_(False)
        parts = set().union(*(backbone.part(part) for part in row.trains))
        if self.gradient_from is not None:
            parts -= backbone.before_block(self.gradient_from)
        base = {name: parameter for name, parameter in backbone.named_parameters() if name in parts}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = row.build(backbone, options)  # what is new takes a gradient from the start
        for parameter in base.values():
            parameter.requires_grad_(True)
        self._trained_base = base
        self._kept: dict[str, Tensor] = {}
        self._adapting = True
        self.eval()

    @property
    def masks(self) -> slice:
        """Which masks of the decoder are the classes: for one class the single answer."""
        first = 0 if len(self.classes) == 1 else self.backbone.card.first_class_mask
        return slice(first, first + len(self.classes))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what the method adds; the backbone stays in eval."""
        super().train(mode)
        self.backbone.eval()
        return self

    def trained(self) -> dict[str, nn.Parameter]:
        """Return every trained parameter by its name in this module."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def adapter_state(self) -> dict[str, Tensor]:
        """Return what an adapter file holds: trained parameters and the buffers of the method's modules."""
        state: dict[str, Tensor] = {name: parameter.detach() for name, parameter in self.trained().items()}
        return state | {f"adapter.{name}": buffer for name, buffer in self.adapter.named_buffers()}

    def keep_base(self) -> None:
        """Remember the base values of the trained parts, so that `disabled` can restore them.

        To be called before anything is trained or loaded; costs one copy of the trained parts.
        """
        self._kept = {name: parameter.detach().clone() for name, parameter in self._trained_base.items()}

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Be the base model, bit for bit, inside the block. Needs `keep_base` to have been called."""
        if self._kept.keys() != self._trained_base.keys():
            raise RuntimeError("disabled() needs keep_base() to be called before training or loading")
        adapted = {
            name: parameter.detach().to("cpu", copy=True) for name, parameter in self._trained_base.items()
        }
        self._load(self._kept)
        self._enable(False)
        try:
            yield
        finally:
            self._load(adapted)
            self._enable(True)

    def _enable(self, on: bool) -> None:
        self._adapting = on
        self.adapter.enable(on)

    def _load(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained_base.items():
                parameter.copy_(values[name])

    def merge(self) -> Backbone:
        """Return the adapted model as a plain backbone; this model must not be used any more.

        Raises `SettingError` if the method adds what no plain backbone has.
        """
        self.row.require_mergeable()
        self.adapter.merge()
        return self.backbone.requires_grad_(False)

    def encode(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into embeddings (B, E, g, g), before the adapter adds to them."""
        return self.backbone.encode(
            frame,
            self.adapter if self._adapting else UNADAPTED,
            gradient_from=self.gradient_from,
            checkpointing=self.checkpointing,
        )

    def forward(
        self,
        frame: Tensor | None,
        extra: Tensor | None,
        prompts: Prompts,
        weight: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Return low-resolution logits (B, C, 4g, 4g) for prompts in pixels of the model frame.

        `embedding`: what `encode` made of the frame, which is not looked at then and may be None.

        One class is the decoder's single mask; several classes are its candidate masks in turn.
        """
        if embedding is None:
            assert frame is not None, "either a frame or its embedding is needed"
            embedding = self.encode(frame)
        if self._adapting:
            embedding = self.adapter.adapt_embedding(embedding, extra, weight)
        at_once = self.backbone.images_at_once
        parts = [
            run(self.checkpointing, self.backbone.decode, cells, asked).logits[:, self.masks]
            for cells, asked in zip(embedding.split(at_once), prompts.split(at_once), strict=True)
        ]
        return torch.cat(parts)
