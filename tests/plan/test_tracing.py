"""What a trace says, against what torch's allocator counts when the step is made."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from samfit.backbones import chunks
from samfit.defaults import resolve
from samfit.losses import loss_function
from samfit.methods import METHODS
from samfit.methods.precision import autocast, store_frozen
from samfit.plan.setup import Setup, setup_of
from samfit.plan.tracing import trace_prediction, trace_training
from samfit.settings import Precision, TrainSettings
from samfit.step import prediction_step, training_step
from samfit.testing import Case, small_backbone
from samfit.testing.held import peak_bytes

WAYS = (("bf16", True), ("32", False), ("32", True))
CASES = [
    pytest.param(method, *way, marks=[pytest.mark.slow] if way != WAYS[0] and method != "cad" else [])
    for method in METHODS
    for way in WAYS
]


def setup(
    method: str, precision: Precision = "32", *, checkpointing: bool = False, cached: bool = False
) -> Setup:
    """Return the setup of the step that a `Case` makes: two images of sam-tiny at its own size."""
    settings = TrainSettings(
        data="-", output="-", backbone="sam-tiny", method=method, batch_size=2, precision=precision
    )
    return setup_of(resolve(settings), classes=1, device="cpu", checkpointing=checkpointing, cached=cached)


def case_of(method: str) -> Case:
    return Case(METHODS[method], partial(small_backbone, "sam-tiny"))


@pytest.mark.parametrize(("method", "precision", "checkpointing"), CASES)
def test_a_traced_step_takes_what_the_real_one_takes(method: str, precision: Precision, checkpointing: bool):
    case = case_of(method)
    model = case.attached().train()
    store_frozen(model, precision)
    model.checkpointing = checkpointing
    loss = loss_function(resolve(TrainSettings(data="-", output="-", method=method)).loss)

    def step() -> None:
        with autocast(precision, "cpu"):
            result = training_step(model, model.backbone.frame, case.batch, loss)
        result.loss.backward()

    step()  # what torch prepares once
    model.zero_grad(set_to_none=True)
    traced = trace_training(setup(method, precision, checkpointing=checkpointing))
    assert traced.step == pytest.approx(peak_bytes(step), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_traced_prediction_takes_what_the_real_one_takes(method: str):
    case = case_of(method)
    model, batch = case.attached(), case.batch

    def predict() -> None:
        prediction_step(model, batch.frame, batch.extra, batch.prompts)

    predict()
    assert trace_prediction(setup(method)).temporary == pytest.approx(peak_bytes(predict), rel=0.1)


def test_weights_inputs_and_the_state_of_the_optimizer_are_counted_to_the_byte():
    case = case_of("cad")
    model, batch = case.attached(), case.batch
    optimizer = torch.optim.AdamW(model.trained().values())
    for parameter in model.trained().values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    inputs = [batch.frame, batch.extra, batch.prompts.points, batch.prompts.labels, batch.target, batch.valid]
    traced = trace_training(setup("cad"))
    assert traced.weights == sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert traced.optimizer == sum(moment.nbytes for moment in moments)
    assert traced.inputs == sum(t.nbytes for t in inputs if t is not None) + batch.weight.nbytes
    assert traced.peak == traced.step + traced.weights + traced.inputs + traced.optimizer


def test_with_cached_embeddings_the_encoder_is_not_on_the_device():
    model = case_of("decoder").attached()
    encoder = sum(
        parameter.nbytes for parameter in model.backbone.get_submodule("image_encoder").parameters()
    )
    whole, cached = trace_training(setup("decoder")), trace_training(setup("decoder", cached=True))
    assert whole.weights - cached.weights == encoder
    frame, embedding = 3 * 128**2, 64 * 16**2
    assert whole.inputs - cached.inputs == 2 * 4 * (frame - embedding)
    assert cached.step <= whole.step


def test_checkpointing_keeps_less_and_bfloat16_stores_less():
    plain = trace_training(setup("medical-adapter"))
    assert trace_training(setup("medical-adapter", checkpointing=True)).activations < plain.activations / 2
    assert trace_training(setup("medical-adapter", "bf16")).weights < plain.weights


@pytest.mark.slow
def test_following_the_first_chunks_alone_sees_the_peak(monkeypatch: pytest.MonkeyPatch):
    larger = replace(setup("cad", cached=True), image_size=512, loss_size=256)
    few = trace_training(larger)
    monkeypatch.setattr(chunks, "first_only", nullcontext)
    assert trace_training(larger) == few
