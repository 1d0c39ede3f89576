import json
import subprocess
import sys

import pytest
import torch
from monai.losses import DiceCELoss  # pyright: ignore[reportPrivateImportUsage]
from safetensors.torch import load_file
from support import golden
from torch._subclasses.fake_tensor import FakeTensorMode

from samfit.errors import SettingError
from samfit.losses import LOSSES, loss_function

NAMES = tuple(LOSSES)
SHAPES = [(2, 1, 12, 16), (3, 2, 7, 5)]


def inputs(shape: tuple[int, ...], *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits, soft targets and a valid area that holds everything."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    target = torch.rand(shape, generator=generator)
    return logits, target, torch.ones(shape[0], 1, *shape[2:])


def total(name: str, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(loss_function(name)(logits, target, valid).values())).sum(dim=0)


def test_unknown_loss_is_answered_with_the_nearest_name():
    with pytest.raises(SettingError, match="unknown loss 'bce-iuo'; did you mean 'bce-iou'"):
        loss_function("bce-iuo")


def test_the_table_is_read_without_torch():
    code = "import sys, samfit.losses; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_are_one_float32_number_an_image(name, shape):
    logits, target, valid = inputs(shape)
    parts = loss_function(name)(logits.bfloat16(), target, valid)
    assert all(part.shape == (shape[0],) and part.dtype == torch.float32 for part in parts.values())


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_computed_in_float32(name):
    logits, target, valid = inputs(SHAPES[0])
    rounded = logits.bfloat16()
    assert torch.equal(
        total(name, rounded, target, valid),
        total(name, rounded.float(), target, valid),
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_its_own_loss(name):
    logits, target, valid = inputs((3, 2, 7, 5))
    together = total(name, logits, target, valid)
    alone = [total(name, logits[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", NAMES)
def test_classes_count_alike(name):
    logits, target, valid = inputs((3, 2, 7, 5))
    by_class = [total(name, logits[:, c : c + 1], target[:, c : c + 1], valid) for c in range(2)]
    torch.testing.assert_close(total(name, logits, target, valid), torch.stack(by_class).mean(dim=0))


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_loss_nor_gradient(name):
    logits, target, valid = inputs((2, 2, 8, 8))
    valid[:, :, 5:], valid[:, :, :, 6:] = 0, 0
    logits.requires_grad_()
    cropped = total(name, logits[..., :5, :6], target[..., :5, :6], valid[..., :5, :6])
    padded = total(name, logits, target, valid)
    torch.testing.assert_close(padded, cropped)
    (gradient,) = torch.autograd.grad(padded.sum(), logits)
    assert not (gradient * (1 - valid)).any()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_nothing_but_padding_costs_nothing(name):
    logits, target, valid = inputs((2, 1, 6, 6))
    valid[0] = 0
    logits.requires_grad_()
    loss = total(name, logits, target, valid)
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[1] > 0
    assert logits.grad is not None
    assert not logits.grad[0].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 20.0, 90.0, 1e4])
@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_loss_and_gradient_are_finite_for_any_logit(name, size, truth):
    logits = torch.full((2, 1, 4, 4), size)
    logits[1] = -size
    logits.requires_grad_()
    loss = total(name, logits, torch.full((2, 1, 4, 4), truth), torch.ones(2, 1, 4, 4))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_loss(name):
    logits, target, valid = (tensor[:1, :, :3, :4] for tensor in inputs((1, 2, 6, 6)))
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(total(name, logits, target, valid).sum(), logits)
    with torch.no_grad():
        ahead, behind = (
            total(name, logits + step * direction, target, valid).sum() for step in (0.01, -0.01)
        )
    assert ((ahead - behind) / 0.02).item() == pytest.approx((gradient * direction).sum().item(), rel=2e-3)


def test_a_confident_mistake_has_a_gradient_where_rounded_probabilities_have_none():
    logits = torch.full((1, 1, 1, 1), 30.0, requires_grad=True)
    loss = loss_function("bce-iou")(logits, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))["bce"]
    loss.sum().backward()
    assert loss.item() == pytest.approx(30)
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_trace_without_values(name):
    with FakeTensorMode():
        logits = torch.empty(2, 3, 8, 8, requires_grad=True)
        total(name, logits, torch.empty(2, 3, 8, 8), torch.ones(2, 1, 8, 8)).sum().backward()
        assert logits.grad is not None
        assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("target_kind", ["soft", "hard", "empty", "full"])
def test_dice_ce_equals_monai_for_one_class(target_kind):
    logits, target, valid = inputs((3, 1, 9, 13))
    target = {
        "soft": target,
        "hard": target.round(),
        "empty": torch.zeros_like(target),
        "full": torch.ones_like(target),
    }[target_kind]
    logits.requires_grad_()
    reference = DiceCELoss(sigmoid=True, squared_pred=True)(logits, target)
    ours = total("dice-ce", logits, target, valid).mean()
    torch.testing.assert_close(ours, reference, rtol=2e-6, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, reference)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("case", ["one_class", "two_classes", "empty_target", "full_target", "large_logits"])
def test_losses_equal_the_numbers_of_medical_sam_adapter(case):
    published = json.loads(golden("msa_losses.json").read_text())["cases"][case]
    stored = load_file(golden("msa_losses.safetensors"))
    logits, target = stored[f"{case}.in.logits"].requires_grad_(), stored[f"{case}.in.target"].float()
    valid = torch.ones_like(logits[:, :1])

    weighted = total("bce-weighted", logits, target, valid).mean()
    assert weighted.item() == pytest.approx(published["bce_pos_weight_2"], rel=2e-6)
    (gradient,) = torch.autograd.grad(weighted, logits)
    expected = stored[f"{case}.grad_bce_pos_weight_2"].double()
    assert (gradient.double() - expected).norm() / expected.norm() < 1e-5

    parts = loss_function("dice-ce")(logits, target, valid)
    assert parts["dice"].mean().item() == pytest.approx(published["dice_part"], rel=2e-6)
    if logits.shape[1] == 1:  # for several classes the published cross-entropy is a softmax, ours is not
        assert parts["ce"].mean().item() == pytest.approx(published["ce_part"], rel=2e-6)
        (gradient,) = torch.autograd.grad((parts["dice"] + parts["ce"]).mean(), logits)
        expected = stored[f"{case}.grad_dice_ce_sigmoid_squared"].double()
        assert (gradient.double() - expected).norm() / expected.norm() < 1e-5
