"""CAD's losses and metrics against the numbers of its published code (commit 75d667b)."""

import json

import numpy as np
import pytest
import torch
from parity_support import error, load_golden
from support import golden

from samfit.losses import loss_function
from samfit.losses.functions import soft_iou_loss
from samfit.metrics.protocols import PROTOCOLS
from samfit.metrics.scores import score

CASES = (
    "soft_vs_blob",
    "empty_target",
    "full_target",
    "good",
    "perfect_hard",
    "empty_both",
    "empty_prediction",
    "saturated_wrong",
    "batch3",
)
VALUE, GRADIENT = 2e-6, 1e-5


def numbers() -> dict:
    return json.loads(golden("cad_losses_metrics.json").read_text())


def tensors(case: str) -> dict[str, torch.Tensor]:
    """Tensors of one case with a class axis: (B, 1, H, W)."""
    stored, _ = load_golden("cad_losses_metrics")
    prefix = f"{case}."
    return {
        name.removeprefix(prefix): tensor[:, None].float()
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def assert_gradient(ours: torch.Tensor | None, published: torch.Tensor) -> None:
    assert ours is not None
    if published.any():
        assert error(ours, published) < GRADIENT
    else:
        assert not ours.any()


def test_every_published_case_is_compared():
    assert set(numbers()["cases"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_loss_of_logits_equals_the_published_loss_of_probabilities(case):
    published, stored = numbers()["cases"][case], tensors(case)
    probability = stored["in.pred"]
    logits = torch.logit(probability.double()).float().requires_grad_()
    parts = loss_function("bce-iou")(logits, stored["in.target"], torch.ones_like(probability))
    assert parts["bce"].mean().item() == pytest.approx(published["bce"], abs=VALUE)
    assert parts["iou"].mean().item() == pytest.approx(published["iou_loss"], abs=VALUE)
    # Added up in float64: float32 has only every 8e-6th number near 101.
    total = parts["bce"].double() + parts["iou"].double()
    assert total.mean().item() == pytest.approx(published["loss"], abs=VALUE)

    # The chain rule brings the published gradients from the probabilities to the logits.
    slope = probability * (1 - probability)
    for part, name in (("bce", "grad_bce"), ("iou", "grad_iou_loss")):
        (gradient,) = torch.autograd.grad(parts[part].mean(), logits, retain_graph=True)
        assert_gradient(gradient, stored[name] * slope)


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_soft_iou_equals_the_published_one_at_the_probabilities(case):
    stored = tensors(case)
    probability = stored["in.pred"].requires_grad_()
    soft_iou_loss(probability, stored["in.target"], torch.ones_like(probability)).mean().backward()
    assert_gradient(probability.grad, stored["grad_iou_loss"])


def test_saturated_logits_give_the_published_value_and_no_gradient():
    published, stored = numbers()["saturated_logits"], tensors("saturated")
    logits = stored["in.logits"].requires_grad_()
    parts = loss_function("bce-iou")(logits, stored["in.target"], torch.ones_like(logits))
    loss = (parts["bce"] + parts["iou"]).mean()
    loss.backward()
    assert parts["bce"].mean().item() == pytest.approx(published["bce"], abs=VALUE)
    assert loss.item() == pytest.approx(published["loss"], abs=VALUE)
    assert_gradient(logits.grad, stored["grad_logits"])
    assert logits.grad is not None
    assert not logits.grad[logits.detach().abs() > 100].any()


@pytest.mark.parametrize("case", CASES)
def test_the_protocol_gives_the_published_scores(case):
    published, stored = numbers()["cases"][case], tensors(case)
    images = zip(stored["in.target"].numpy(), stored["in.pred"].numpy(), strict=True)
    scores = [score(truth, probability, "", PROTOCOLS["cad"]).values for truth, probability in images]
    for name in ("dice", "iou"):
        mean = np.mean([values[name] for values in scores])
        assert mean == pytest.approx(published[name], abs=VALUE)
        assert mean == pytest.approx(published["float64"].get(name, mean), abs=1e-6)


def test_another_smoothing_or_a_mean_over_the_batch_is_caught(monkeypatch):
    stored, published = tensors("batch3"), numbers()["cases"]["batch3"]["iou_loss"]
    probability, target = stored["in.pred"], stored["in.target"]
    valid = torch.ones_like(target)
    whole = [image.flatten()[None, None, None] for image in (probability, target, valid)]
    assert abs(float(soft_iou_loss(*whole).mean()) - published) > 100 * VALUE
    monkeypatch.setattr("samfit.losses.functions.IOU_SMOOTH", 1.0)
    assert abs(float(soft_iou_loss(probability, target, valid).mean()) - published) > 100 * VALUE
