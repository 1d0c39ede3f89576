"""Tracing: the real step on tensors without values, and what it would hold.

A step asks for no value of a tensor, so it runs on `FakeTensorMode`'s, which have a shape and a type alone.
What loops over chunks is followed for the first chunk, which is the largest.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from samfit.backbones import build_backbone, chunks
from samfit.losses import loss_function
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.precision import autocast, store_frozen
from samfit.plan.counting import Counter, bytes_of, without_values
from samfit.plan.setup import Estimate, Setup
from samfit.step import prediction_step, training_step
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Batch, Prompts

_MOMENTS = 2
"""Numbers that Adam and AdamW keep for each trained one."""


def trace_training(setup: Setup) -> Estimate:
    """Return what a training step takes, from the second on, when the optimizer has its state."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = _model(setup, mode).train()
    with mode:
        batch = _batch(setup, model)
        counter = Counter([*model.parameters(), *model.buffers(), *_tensors_of(batch)])
        trained = list(model.trained().values())
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(counter.note_gradient)
        with counter, chunks.first_only():
            with autocast(setup.precision, "cpu"):
                result = training_step(model, model.backbone.frame, batch, loss_function(setup.loss))
            kept = counter.bytes
            result.loss.backward()
    gradients = counter.gradients_at_peak
    activations = min(kept, counter.peak - gradients)
    return Estimate(
        weights=bytes_of(_held_by(model, setup)),
        inputs=bytes_of(_tensors_of(batch)),
        optimizer=_MOMENTS * bytes_of(trained),
        gradients=gradients,
        activations=activations,
        temporary=counter.peak - gradients - activations,
    )


def trace_prediction(setup: Setup) -> Estimate:
    """Return what it takes to segment `setup.batch_size` images at once; nothing is trained."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = _model(setup, mode)
    with mode:
        batch = _batch(setup, model)
        inputs = _tensors_of(replace(batch, target=batch.weight, valid=batch.weight))
        counter = Counter([*model.parameters(), *model.buffers(), *inputs])
        with counter, chunks.first_only(), autocast(setup.precision, "cpu"):
            prediction_step(model, batch.frame, batch.extra, batch.prompts, batch.embedding)
    return Estimate(
        weights=bytes_of(_held_by(model, setup)),
        inputs=bytes_of(inputs),
        optimizer=0,
        gradients=0,
        activations=0,
        temporary=counter.peak,
    )


def _model(setup: Setup, mode: FakeTensorMode) -> AdaptedModel:
    """Build the model; its weights are never written, so that the machine does not hold them either."""
    backbone = build_backbone(setup.backbone, variant=setup.variant, image_size=setup.image_size)
    names = tuple(f"class {number}" for number in range(setup.classes))
    model = attach(backbone, setup.method, classes=names, **dict(setup.options))
    model.backbone.attend(setup.attention)
    model.checkpointing = setup.checkpointing
    without_values(model, mode)
    with mode:
        store_frozen(model, setup.precision)
    return model


def _batch(setup: Setup, model: AdaptedModel) -> Batch:
    """Return a batch in the shapes of a real one; a prompt is a box."""
    count, size, side = setup.batch_size, setup.image_size, setup.loss_size
    grid, width = model.backbone.grid, model.backbone.card.embedding_width
    reader = model.row.reader
    with unset_fake_temporarily():
        extra = None if reader is None else reader(np.zeros((size, size, 3), np.uint8), model.backbone.frame)
    labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(count, 2).clone()
    encoded = torch.bfloat16 if setup.precision == "bf16" else torch.float32
    return Batch(
        frame=None if setup.cached else torch.empty(count, 3, size, size),
        embedding=torch.empty(count, width, grid, grid, dtype=encoded) if setup.cached else None,
        prompts=Prompts(torch.empty(count, 2, 2), labels, has_box=True),
        extra=None if extra is None else torch.empty(count, *extra.shape),
        target=torch.empty(count, setup.classes, side, side),
        valid=torch.empty(count, 1, side, side),
        weight=torch.empty(count),
    )


def _held_by(model: AdaptedModel, setup: Setup) -> list[Tensor]:
    """Return the parameters and buffers that are on the device."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    away = "backbone.image_encoder." if setup.cached else None
    return [tensor for name, tensor in tensors if away is None or not name.startswith(away)]


def _tensors_of(batch: Batch) -> list[Tensor]:
    """Return every tensor of a batch."""
    shown = [batch.frame, batch.embedding, batch.extra, batch.prompts.points, batch.prompts.labels]
    return [tensor for tensor in (*shown, batch.target, batch.valid, batch.weight) if tensor is not None]
