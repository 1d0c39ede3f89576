"""Ten steps of CAD's training, against the published trainer with three weight decays."""

import pytest
import torch
from golden_models import by_published_name, golden_batch, golden_cad
from parity_support import error, load_golden

from samfit.losses import loss_function
from samfit.step import prediction_step, training_step

WEIGHT_DECAYS = {"default": 0.01, "wd0": 0.0, "wd5": 5.0}


@pytest.fixture(scope="module")
def golden():
    return load_golden("training_curve_cad")


def train(tensors, *, weight_decay, learning_rate=2e-4, steps=10, high_frequency=True):
    """Train the golden model on its one batch; return the losses and the model."""
    model = golden_cad().train()
    batch = golden_batch(model, tensors)
    if not high_frequency:
        assert batch.extra is not None
        batch.extra[:, 3:] = 0
    optimizer = torch.optim.AdamW(model.trained().values(), lr=learning_rate, weight_decay=weight_decay)
    losses = []
    for _ in range(steps):
        result = training_step(model, model.backbone.frame, batch, loss_function("bce-iou"))
        losses.append([float(result.parts["bce"]), float(result.parts["iou"]), float(result.loss.detach())])
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64), model, batch


@pytest.fixture(scope="module", params=WEIGHT_DECAYS)
def curve(request, golden):
    tensors, _ = golden
    start = by_published_name(golden_cad(), golden_cad().trained())
    losses, model, batch = train(tensors, weight_decay=WEIGHT_DECAYS[request.param])
    return request.param, losses, by_published_name(model, model.trained()), start, model, batch


def _reliable(metadata, names):
    return [name for name in names if name not in metadata["noise_only"]]


def test_the_losses_equal_the_published(golden, curve):
    key, losses, *_ = curve
    assert (losses - golden[0][f"{key}.loss_bce_iou_total"]).abs().max() < 5e-6


def test_the_published_tensors_are_trained_but_for_those_without_gradient(golden, curve):
    _, _, final, *_ = curve
    metadata = golden[1]
    assert set(final) == set(metadata["names"]) - set(metadata["no_gradient_names"])


def test_the_trained_tensors_end_where_the_published_do(golden, curve):
    tensors, metadata = golden
    key, _, final, start, *_ = curve
    order = {name: index for index, name in enumerate(metadata["names"])}
    for name in _reliable(metadata, final):
        expected = tensors[f"{key}.final_norm"][order[name]]
        tolerance = 1e-7 if name in metadata["zero_gradient_names"] else 3e-5
        norm = final[name].detach().double().norm()
        assert error(norm, expected) < tolerance, name
        delta = (final[name].detach().double() - start[name].detach().double()).norm()
        expected_delta = tensors[f"{key}.delta_norm"][order[name]]
        assert abs(delta - expected_delta) <= 3e-2 * expected_delta, name


def test_the_statistics_and_the_evaluation_afterwards_equal_the_published(golden, curve):
    tensors, _ = golden
    key, _, _, _, model, batch = curve
    prefix = f"{key}.buffer_after.conv_adapter."
    for name in [name for name in tensors if name.startswith(prefix)]:
        assert error(model.adapter.get_buffer(name.removeprefix(prefix)), tensors[name]) < 1e-3, name
    model.eval()
    low = prediction_step(model, batch.frame, batch.extra, batch.prompts)
    assert error(low, tensors[f"{key}.eval_low_res_after"]) < 5e-3


def test_training_without_weight_decay_is_caught(golden):
    tensors, metadata = golden
    losses, model, _ = train(tensors, weight_decay=0.0)
    final = by_published_name(model, model.trained())
    order = {name: index for index, name in enumerate(metadata["names"])}
    name = metadata["zero_gradient_names"][1]
    norm = final[name].detach().double().norm()
    assert error(norm, tensors["default.final_norm"][order[name]]) > 50 * 1e-7
    assert (losses - tensors["wd5.loss_bce_iou_total"]).abs().max() > 50 * 5e-6


def test_training_without_the_high_frequency_image_is_caught(golden):
    losses, *_ = train(golden[0], weight_decay=0.01, steps=3, high_frequency=False)
    assert (losses - golden[0]["default.loss_bce_iou_total"][:3]).abs().max() > 50 * 5e-6


def test_another_learning_rate_is_caught(golden):
    losses, *_ = train(golden[0], weight_decay=0.01, learning_rate=2.02e-4)
    assert (losses - golden[0]["default.loss_bce_iou_total"]).abs().max() > 50 * 5e-6
