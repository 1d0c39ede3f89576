"""What the memory of a step depends on, and what it takes, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from samfit.defaults import options_of
from samfit.settings import AttentionKind, Precision, TrainSettings, resolved

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Setup:
    """Everything that decides how much memory a step takes on one device."""

    backbone: str
    variant: str | None
    method: str
    options: tuple[tuple[str, Any], ...]
    """Options of the method, by field."""
    classes: int
    image_size: int
    loss: str
    loss_size: int
    batch_size: int
    """Images that pass at once: a part of a batch, of one device."""
    precision: Precision
    checkpointing: bool
    cached: bool
    """Whether embeddings are read, so that the image encoder is not on the device."""
    device: Device
    attention: AttentionKind


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device at the moment when a step takes the most, from the second step on."""

    weights: int
    """Parameters and buffers of the model."""
    inputs: int
    """The batch: model frames or embeddings, prompts, targets."""
    optimizer: int
    """Two moments for each trained parameter."""
    gradients: int
    activations: int
    """What forward keeps for backward."""
    temporary: int
    """What lives for a part of the step only."""

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(asdict(self).values())

    @property
    def all_gradients(self) -> int:
        """The gradients of all trained parameters: half of what the optimizer keeps, two moments of each."""
        return self.optimizer // 2

    @property
    def step(self) -> int:
        """What the step itself takes: without weights, inputs and state of the optimizer."""
        return self.gradients + self.activations + self.temporary


PARTS = tuple(field.name for field in fields(Estimate))
"""The parts of an estimate in the order of its fields."""


def setup_of(
    settings: TrainSettings, *, classes: int, device: Device, checkpointing: bool, cached: bool
) -> Setup:
    """Return what a training with these settings, which must be resolved, has on each device.

    `settings.checkpointing` and `settings.cache` may say `auto`: what is meant is said beside them.
    """
    shares = settings.accumulate * settings.devices * settings.nodes
    usual: AttentionKind = "folded" if device == "gpu" else "chunked"
    return Setup(
        backbone=settings.backbone,
        variant=settings.variant,
        method=settings.method,
        options=_plain(dict(options_of(settings))),
        classes=classes,
        image_size=resolved(settings.image_size),
        loss=resolved(settings.loss),
        loss_size=resolved(settings.loss_size),
        batch_size=-(-resolved(settings.batch_size) // shares),
        precision=settings.precision,
        checkpointing=checkpointing,
        cached=cached,
        device=device,
        attention=usual if settings.attention == "auto" else settings.attention,
    )


def _plain(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in sorted(options.items()) if value is not None)
