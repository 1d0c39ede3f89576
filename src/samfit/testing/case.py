"""What a check is about, and the few steps that every check is made of."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from samfit.backbones.base import Backbone
from samfit.losses import loss_function
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.row import MethodRow
from samfit.step import prediction_step, training_step
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Batch, Prompts

_IMAGE = (80, 96)
"""Height and width of the original images: not square, so that frames are padded or squeezed."""


@dataclass(frozen=True)
class Roles:
    """What tensors of an adapted model are for, by their names in it. Every other one is frozen."""

    trained: set[str]
    """The parts of the backbone that the row names, and every parameter that is new."""
    buffers: set[str]
    """Every buffer that is new."""
    silent: set[str]
    """Trained tensors of which the row says that they have no gradient (`MethodRow.without_gradient`)."""


@dataclass(frozen=True)
class Case:
    """A method on a backbone, as its author would test it."""

    row: MethodRow
    make_backbone: Callable[[], Backbone]
    """Makes a new backbone with the same weights at every call. Row and maker are handed to other processes,
    so they must be importable by name: `functools.partial(small_backbone, "sam-tiny")` is."""
    names: Collection[str] = ()
    """Names of the tensors in the method's adapter file, as its author stored them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method that are not its defaults."""

    def attached(self, seed: int = 0) -> AdaptedModel:
        """Return the method on a new backbone, its modules drawn from `seed`."""
        return attach(self.make_backbone(), self.row, seed=seed, **self.options)

    def attached_with_roles(self) -> tuple[AdaptedModel, Roles]:
        """Return the method on a new backbone, and what the row says of the model's tensors.

        Tensors are told apart by their memory: a method may put the backbone's own into modules of its own.
        """
        backbone = self.make_backbone()
        base = {storage(tensor) for tensor in tensors(backbone).values()}
        parts = {
            name: storage(tensor) for part in self.row.trains for name, tensor in backbone.part(part).items()
        }
        model = attach(backbone, self.row, **self.options)
        first = model.gradient_from
        early = set() if first is None else self.make_backbone().before_block(first)
        trained = {place for name, place in parts.items() if name not in early}
        names = {
            name
            for name, parameter in model.named_parameters()
            if storage(parameter) in trained or storage(parameter) not in base
        }
        return model, Roles(
            trained=names,
            buffers={name for name, buffer in model.named_buffers() if storage(buffer) not in base},
            silent={name for name in names if any(fnmatch(name, p) for p in self.row.without_gradient)},
        )

    def stepped(self) -> AdaptedModel:
        """Return the model after one step: what begins at zero has left it."""
        model = self.attached()
        take_step(model, self.batch)
        return model

    @cached_property
    def batch(self) -> Batch:
        """Two images of noise with boxes around them; the object is the bright half, left in one, then right.

        Drawn from one seed, so that it is the same in every process.
        """
        generator = torch.Generator().manual_seed(3)
        frame, reader = self.make_backbone().frame, self.row.reader
        noise = torch.randint(0, 128, (2, *_IMAGE, 3), generator=generator, dtype=torch.uint8)
        pixels = (noise + 127 * _halves(_IMAGE[1])[:, None, :, None]).numpy()
        corners = torch.tensor([[0.0, 0.0], [frame.size, frame.size]]).expand(2, 2, 2)
        side = frame.size // self.row.loss_fraction
        return Batch(
            frame=torch.stack([frame.to_model(image) for image in pixels]),
            prompts=Prompts(corners, torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]).expand(2, 2), has_box=True),
            extra=torch.stack([reader(image, frame) for image in pixels]) if reader else None,
            target=_halves(side)[:, None, None, :].expand(2, 1, side, side).float(),
            valid=torch.ones(2, 1, side, side),
            weight=torch.full((2,), 1 / 2),
        )

    @property
    def frames(self) -> Tensor:
        """The batch's model frames (2, 3, N, N)."""
        assert self.batch.frame is not None
        return self.batch.frame

    @cached_property
    def base_answer(self) -> Tensor:
        """Logits (2, 1, 4g, 4g) of the backbone without the method."""
        return decoded(self.make_backbone(), self)


def _halves(width: int) -> Tensor:
    """Return for two rows (2, width) which half of each is the object: the left one, then the right one."""
    left = torch.arange(width) < width // 2
    return torch.stack([left, ~left]).to(torch.uint8)


def expect(holds: bool, otherwise: str) -> None:
    """Raise `AssertionError` with what is wrong. Unlike `assert` it also works under `python -O`."""
    if not holds:
        raise AssertionError(otherwise)


@torch.no_grad()
def decoded(backbone: Backbone, case: Case) -> Tensor:
    """Return a plain backbone's logits (2, 1, 4g, 4g)."""
    return backbone.decode(backbone.encode(case.frames), case.batch.prompts).logits[:, :1]


def answer(model: AdaptedModel, batch: Batch) -> Tensor:
    """Return the model's logits (2, 1, 4g, 4g), in eval mode and without gradient."""
    return prediction_step(model.eval(), batch.frame, batch.extra, batch.prompts)


def loss_of(model: AdaptedModel, batch: Batch) -> Tensor:
    """Return the loss of a batch in train mode, ready for `backward`."""
    return training_step(model.train(), model.backbone.frame, batch, loss_function("bce-iou")).loss


def gradients(model: AdaptedModel, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradient of every trained tensor; zeros for what none reaches."""
    trained = model.trained()
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(trained, found, strict=True))


def take_step(model: AdaptedModel, batch: Batch) -> None:
    """Move every trained tensor that has a gradient by about 1e-3."""
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-3, weight_decay=0.0)
    loss_of(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()


def unread(name: str) -> bool:
    """Return whether a tensor belongs to one of the decoder's masks that the model does not answer with.

    With one class that is every mask but the first: their kernels are computed, but no loss reaches them, so
    that their gradient is exactly zero, whatever the method.
    """
    _, found, mask = name.partition("output_hypernetworks_mlps.")
    return bool(found) and not mask.startswith("0.")


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return every parameter and every buffer, also those that no state dict holds, by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def storage(tensor: Tensor) -> int:
    """Return what tells whether two tensors share their memory, as parts of one tensor do."""
    return tensor.untyped_storage().data_ptr()
