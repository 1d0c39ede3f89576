"""The steps that memory.py and speed.py measure: a backbone, a method and numbers of everything."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from samfit.backbones import BACKBONES, chunks, load_backbone, mlp
from samfit.defaults import resolve
from samfit.losses import loss_function
from samfit.methods import METHODS, attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.cad import ConvAdapter
from samfit.methods.precision import autocast, store_frozen
from samfit.plan.setup import Device, Setup, setup_of
from samfit.settings import AttentionKind, Precision, TrainSettings
from samfit.step import training_step
from samfit.types import BOTTOM_RIGHT, POSITIVE, TOP_LEFT, Batch, Prompts

ADAPTER = "cad's adapter"
"""Stands in the place of the backbone: the convolutional adapter by itself, on images of `size`."""
_PIXEL = 16


@dataclass(frozen=True)
class Case:
    """One training step."""

    backbone: str
    method: str
    size: int
    """Side of the model frame in pixels."""
    batch: int = 1
    precision: Precision = "32"
    classes: int = 1
    attention: AttentionKind = "auto"
    checkpointing: bool = True
    cached: bool = False
    """With the embedding at hand, so that the image encoder is not on the device."""
    whole: bool = False
    """Layers take all tokens at once, not in chunks, and frozen MLPs keep what lies inside them."""
    plain: bool = False
    """By plain modules: whole attention maps, nothing chunked, fused or computed twice."""

    @property
    def name(self) -> str:
        """What tells it from every other: what is not as usual follows backbone, method and size."""
        return " ".join(
            word for word in (self.backbone, self.method, f"{self.size} px", *self.unusual) if word
        )

    @property
    def unusual(self) -> list[str]:
        """What is not as usual, in words."""
        words: list[str] = []
        if self.batch > 1:
            words.append(f"batch {self.batch}")
        if self.classes > 1:
            words.append(f"{self.classes} classes")
        if self.precision != "32":
            words.append(self.precision)
        if self.cached:
            words.append("cached")
        if self.plain:
            words.append("plain")
        elif not self.checkpointing:
            words.append("no checkpointing")
        if self.whole:
            words.append("whole layers")
        if self.attention != "auto":
            words.append(self.attention)
        return words

    @property
    def is_of_a_run(self) -> bool:
        """Whether a training ever takes such a step, so that `samfit plan` knows it."""
        return self.backbone in BACKBONES and not (self.plain or self.whole)


@dataclass(frozen=True)
class Step:
    """A step ready to be taken."""

    module: nn.Module
    forward: Callable[[], Tensor]
    """Computes the loss."""
    trained: list[nn.Parameter]


def step_of(case: Case, device: str = "cpu") -> Step:
    """Build the model with random weights, and a batch of random images or of their embeddings.

    Random weights are samfit's, drawn as the published code draws its own; those of `transformers` would
    give encoders whose output does not depend on the image.
    """
    return _of_adapter(case, device) if case.backbone == ADAPTER else _of_model(case, device)


def _of_model(case: Case, device: str) -> Step:
    model = model_of(case).train()
    store_frozen(model, case.precision)
    model.to(device)
    batch = batch_of(case, model).to(device)
    loss, frame = loss_function(model.row.defaults["loss"]), model.backbone.frame
    if case.cached:
        assert batch.frame is not None
        with torch.no_grad(), autocast(case.precision, device):
            batch = replace(batch, frame=None, embedding=model.encode(batch.frame))
        model.backbone.get_submodule("image_encoder").to("meta")

    def forward() -> Tensor:
        with autocast(case.precision, device):
            return training_step(model, frame, batch, loss).loss

    return Step(model, forward, list(model.trained().values()))


def _of_adapter(case: Case, device: str) -> Step:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = ConvAdapter(width=256, grid=case.size // 8).train().to(device)
    image = (255 * torch.rand(case.batch, 6, case.size, case.size, generator=generator)).to(device)

    def forward() -> Tensor:
        with autocast(case.precision, device):
            return adapter.features(image).float().square().mean()

    return Step(adapter, forward, list(adapter.parameters()))


def model_of(case: Case) -> AdaptedModel:
    """Build the adapted model of a case, in eval mode and in float32."""
    backbone = load_backbone(case.backbone, weights="random", image_size=case.size)
    names = tuple(f"class-{number}" for number in range(case.classes))
    model = attach(backbone, case.method, classes=names)
    backbone.attend("eager" if case.plain else case.attention)
    model.checkpointing = case.checkpointing and not case.plain
    return model


def batch_of(case: Case, model: AdaptedModel) -> Batch:
    """Return random images with the prompt and at the loss size that are the method's own."""
    generator = torch.Generator().manual_seed(0)
    count, size, side = case.batch, case.size, case.size // model.row.loss_fraction
    if model.row.defaults["prompt"] == "click":
        points, labels = torch.full((count, 1, 2), size / 2), torch.full((count, 1), POSITIVE)
    else:
        points = torch.tensor([[0.0, 0.0], [size, size]]).expand(count, 2, 2)
        labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(count, 2)
    target = torch.zeros(count, case.classes, side, side)
    target[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    extra = None
    if model.row.reader is not None:
        extra = 255 * torch.rand(count, 6, size // 2, size // 2, generator=generator)
    return Batch(
        frame=torch.randn(count, 3, size, size, generator=generator),
        prompts=Prompts(points, labels, has_box=points.shape[1] == 2),
        extra=extra,
        target=target,
        valid=torch.ones(count, 1, side, side),
        weight=torch.full((count,), 1 / count),
    )


def planned(case: Case, device: Device) -> Setup:
    """Return what `samfit plan` is asked for a case."""
    nowhere = Path("nowhere")
    settings = TrainSettings(
        data=nowhere,
        output=nowhere,
        backbone=case.backbone,
        method=case.method,
        image_size=case.size,
        batch_size=case.batch,
        precision=case.precision,
        attention=case.attention,
    )
    choices = {"checkpointing": case.checkpointing, "cached": case.cached}
    return setup_of(resolve(settings), classes=case.classes, device=device, **choices)


@contextmanager
def modules_of(case: Case) -> Iterator[None]:
    """Let samfit's modules compute inside the block as the case says."""
    with ExitStack() as changed:
        if case.plain or case.whole:
            changed.enter_context(patch.object(chunks, "TOKENS", 2**62))
            changed.enter_context(patch.object(mlp, "_is_frozen_linear", lambda _: False))
        if case.plain:
            changed.enter_context(patch.object(ConvAdapter, "features", ConvAdapter.plain_features))
        yield


def words_of(case: Case) -> dict[str, Any]:
    """Return what a result file says of a case."""
    return {"name": case.name} | asdict(case)


def case_of(row: Mapping[str, Any]) -> Case:
    """Return the case that a row of a result file was measured of: what `words_of` wrote."""
    return Case(**{field.name: row[field.name] for field in fields(Case)})


STEPS = (
    *(
        Case(backbone, method, 1024)
        for backbone, methods in {
            "sam-vit-b": tuple(METHODS),
            "efficientsam-s": ("medical-adapter",),
            "efficientsam-ti": ("medical-adapter",),
        }.items()
        for method in methods
    ),
    Case(ADAPTER, "", 512),
)
"""The steps of the docs' table."""
assert {case.backbone for case in STEPS} <= {*BACKBONES, ADAPTER}
