"""Ten steps of training, against the published trainer with three weight decays."""

import pytest
import torch
from golden_models import by_published_name, golden_batch, golden_cad, golden_sam_adapter
from parity_support import error, load_golden

from samfit.losses import loss_function
from samfit.step import prediction_step, training_step

MODELS = {"cad": golden_cad, "sam_adapter": golden_sam_adapter}
HIGH_FREQUENCY = {
    "cad": "golden_models.high_frequency",
    "sam_adapter": "samfit.methods.sam_adapter.high_frequency",
}
"""Where each method takes the high-frequency image."""
WEIGHT_DECAYS = {"default": 0.01, "wd0": 0.0, "wd5": 5.0}


def train(method, tensors, *, weight_decay, learning_rate=2e-4, steps=10):
    """Train the golden model on its one batch; return the losses, the model and the batch."""
    model = MODELS[method]().train()
    batch = golden_batch(model, tensors)
    optimizer = torch.optim.AdamW(model.trained().values(), lr=learning_rate, weight_decay=weight_decay)
    losses = []
    for _ in range(steps):
        result = training_step(model, model.backbone.frame, batch, loss_function("bce-iou"))
        losses.append([float(result.parts["bce"]), float(result.parts["iou"]), float(result.loss.detach())])
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64), model, batch


def published(model):
    """Return what is trained by its published name, in float64."""
    return by_published_name(
        model, {name: tensor.detach().double() for name, tensor in model.trained().items()}
    )


@pytest.fixture(scope="module", params=MODELS)
def golden(request):
    return request.param, *load_golden(f"training_curve_{request.param}")


@pytest.fixture(scope="module")
def curves(golden):
    method, tensors, _ = golden
    return {key: train(method, tensors, weight_decay=decay) for key, decay in WEIGHT_DECAYS.items()}


@pytest.mark.parametrize("key", WEIGHT_DECAYS)
def test_the_losses_equal_the_published(golden, curves, key):
    _, tensors, _ = golden
    losses, *_ = curves[key]
    assert (losses - tensors[f"{key}.loss_bce_iou_total"]).abs().max() < 5e-6


def test_the_published_tensors_are_trained_but_for_those_without_gradient(golden):
    method, _, metadata = golden
    trained = published(MODELS[method]())
    assert set(trained) == set(metadata["names"]) - set(metadata["no_gradient_names"])


@pytest.mark.parametrize("key", WEIGHT_DECAYS)
def test_the_trained_tensors_end_where_the_published_do(golden, curves, key):
    method, tensors, metadata = golden
    _, model, _ = curves[key]
    start, final = published(MODELS[method]()), published(model)
    for index, name in enumerate(metadata["names"]):
        if name in metadata["noise_only"] or name in metadata["no_gradient_names"]:
            continue
        tolerance = 1e-7 if name in metadata["zero_gradient_names"] else 3e-5
        assert error(final[name].norm(), tensors[f"{key}.final_norm"][index]) < tolerance, name
        moved, expected = (final[name] - start[name]).norm(), tensors[f"{key}.delta_norm"][index]
        assert abs(moved - expected) <= 3e-2 * expected, name


@pytest.mark.parametrize("key", WEIGHT_DECAYS)
def test_the_statistics_and_the_evaluation_afterwards_equal_the_published(golden, curves, key):
    _, tensors, _ = golden
    _, model, batch = curves[key]
    buffers = {f"adapter.{name}": buffer for name, buffer in model.adapter.named_buffers()}
    for name, buffer in by_published_name(model, buffers).items():
        if not name.endswith("num_batches_tracked"):
            assert error(buffer, tensors[f"{key}.buffer_after.{name}"]) < 1e-3, name
    low = prediction_step(model.eval(), batch.frame, batch.extra, batch.prompts)
    assert error(low, tensors[f"{key}.eval_low_res_after"]) < 5e-3


def test_training_without_weight_decay_is_caught(golden, curves):
    _, tensors, metadata = golden
    losses, model, _ = curves["wd0"]
    name = metadata["zero_gradient_names"][1]
    expected = tensors["default.final_norm"][metadata["names"].index(name)]
    assert error(published(model)[name].norm(), expected) > 50 * 1e-7
    assert (losses - tensors["wd5.loss_bce_iou_total"]).abs().max() > 50 * 5e-6


def test_training_without_the_high_frequency_image_is_caught(golden, monkeypatch):
    method, tensors, _ = golden
    monkeypatch.setattr(HIGH_FREQUENCY[method], torch.zeros_like)
    losses, *_ = train(method, tensors, weight_decay=0.01, steps=3)
    assert (losses - tensors["default.loss_bce_iou_total"][:3]).abs().max() > 50 * 5e-6


@pytest.mark.slow
def test_another_learning_rate_is_caught(golden):
    method, tensors, _ = golden
    losses, *_ = train(method, tensors, weight_decay=0.01, learning_rate=2.02e-4)
    assert (losses - tensors["default.loss_bce_iou_total"]).abs().max() > 50 * 5e-6
