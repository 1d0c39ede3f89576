"""A backbone with a method attached: what is trained, what stays frozen, and how it can be switched off."""

import contextlib
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from samfit.backbones.base import Backbone
from samfit.errors import SettingError
from samfit.methods.row import MethodRow
from samfit.types import Prompts


class Adapter(nn.Module):
    """What a method adds beside the encoder; subclasses add to the embedding."""

    def forward(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        """Return the adapted embedding (B, E, g, g).

        `extra`: (B, …) what the method's `read` made of the image. `weight`: (B,) share of each image in the
        step, None outside training; an image of share 0 must leave no trace in batch statistics.
        """
        raise NotImplementedError


def require_masks(classes: tuple[str, ...]) -> None:
    """Raise `SettingError` if the mask decoder has not a mask for each class."""
    if len(classes) > 3:
        raise SettingError(
            f"{len(classes)} classes ({', '.join(classes)}); the mask decoder has masks for three at most: "
            "name some with --classes, and train several runs"
        )


class AdaptedModel(nn.Module):
    """A frozen backbone, the modules that a method adds, and the parts of the backbone that it trains."""

    def __init__(self, backbone: Backbone, row: MethodRow, *, classes: tuple[str, ...], seed: int = 0):
        super().__init__()
        require_masks(classes)
        self.row = row
        self.classes = classes
        self.backbone = backbone.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = row.build(backbone)
        self._base: dict[str, Tensor] = {}
        self._adapting = True
        for part in row.trains:
            for parameter in backbone.part(part).values():
                parameter.requires_grad_(True)
        self.eval()

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
        if self.adapter is not None:
            state |= {f"adapter.{name}": buffer for name, buffer in self.adapter.named_buffers()}
        return state

    def keep_base(self) -> None:
        """Remember the base values of the trained parts, so that `disabled` can restore them.

        To be called before anything is trained or loaded; costs one copy of the trained parts.
        """
        self._base = {
            name: parameter.detach().clone()
            for name, parameter in self.backbone.named_parameters()
            if parameter.requires_grad
        }

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Be the base model, bit for bit, inside the block. Needs `keep_base` to have been called."""
        parameters = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        if parameters.keys() != self._base.keys():
            raise RuntimeError("disabled() needs keep_base() to be called before training or loading")
        adapted = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._load(parameters, self._base)
        self._adapting = False
        try:
            yield
        finally:
            self._load(parameters, adapted)
            self._adapting = True

    @staticmethod
    def _load(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

    def encode(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into embeddings (B, E, g, g), before the adapter adds to them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.row.gradient_from is not None):
            return self.backbone.encode(frame)

    def forward(
        self, frame: Tensor, extra: Tensor | None, prompts: Prompts, weight: Tensor | None = None
    ) -> Tensor:
        """Return low-resolution logits (B, C, 4g, 4g) for prompts in pixels of the model frame.

        One class is the decoder's single mask; several classes are its candidate masks in turn.
        """
        embedding = self.encode(frame)
        if self.adapter is not None and self._adapting:
            embedding = self.adapter(embedding, extra, weight)
        count = len(self.classes)
        return self.backbone.decode(embedding, prompts, multimask=count > 1).logits[:, :count]
