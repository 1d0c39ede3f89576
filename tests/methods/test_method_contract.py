"""What every method promises, for every family of backbones: both tables multiplied."""

import contextlib

import pytest
import torch
from small_backbones import SMALL, small_backbone
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from samfit.errors import SettingError
from samfit.losses import loss_function
from samfit.methods import METHODS, attach, row_of
from samfit.methods.adapted import AdaptedModel
from samfit.runs import load_adapter, read_adapter, save_adapter
from samfit.step import prediction_step, training_step
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Batch, Prompts

CASES = [(family, method) for family in SMALL for method in METHODS]
UNUSED_MASKS = (
    "output_hypernetworks_mlps.1.",
    "output_hypernetworks_mlps.2.",
    "output_hypernetworks_mlps.3.",
)
"""With one class these masks are computed, but no loss reaches them: their gradient is exactly zero."""


def adapted(
    family: str, method: str, classes: tuple[str, ...] = ("foreground",), seed: int = 0
) -> AdaptedModel:
    return attach(small_backbone(family, seed=seed), method, classes=classes)


def batch_for(model: AdaptedModel, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(3)
    frame = model.backbone.frame
    pixels = torch.randint(0, 256, (count, 80, 96, 3), generator=generator, dtype=torch.uint8).numpy()
    corners = torch.tensor([[0.0, 0.0], [frame.size, frame.size]]).expand(count, 2, 2)
    reader = model.row.reader
    size = frame.size // model.row.loss_fraction
    return Batch(
        frame=torch.stack([frame.to_model(image) for image in pixels]),
        prompts=Prompts(corners, torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]).expand(count, 2), has_box=True),
        extra=torch.stack([reader(image, frame) for image in pixels]) if reader else None,
        target=(torch.rand(count, len(model.classes), size, size, generator=generator) > 0.5).float(),
        valid=torch.ones(count, 1, size, size),
        weight=torch.full((count,), 1 / count),
    )


def take_step(model: AdaptedModel, batch: Batch, learning_rate: float = 1e-3) -> None:
    optimizer = torch.optim.AdamW(model.trained().values(), lr=learning_rate, weight_decay=0.0)
    model.train()
    result = training_step(model, model.backbone.frame, batch, loss_function("bce-iou"))
    result.loss.backward()
    optimizer.step()


def answer(model: AdaptedModel, batch: Batch) -> torch.Tensor:
    return prediction_step(model.eval(), batch.frame, batch.extra, batch.prompts)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_before_the_first_step_the_model_equals_the_base_where_the_row_says_so(family, method):
    model = adapted(family, method)
    batch = batch_for(model)
    base = model.backbone.decode(model.backbone.encode(batch.frame), batch.prompts).logits
    same = torch.equal(answer(model, batch), base)
    assert same == model.row.identity_at_start


@pytest.mark.parametrize(("family", "method"), CASES)
def test_disabled_restores_the_base_to_the_last_bit_and_leaves_the_adapted_model_as_it_was(family, method):
    model = adapted(family, method)
    batch = batch_for(model)
    base = model.backbone.decode(model.backbone.encode(batch.frame), batch.prompts).logits
    model.keep_base()
    take_step(model, batch)
    after = answer(model, batch)
    assert not torch.equal(after, base)
    with model.disabled():
        assert torch.equal(answer(model, batch), base)
    assert torch.equal(answer(model, batch), after)
    with contextlib.suppress(ZeroDivisionError), model.disabled():
        raise ZeroDivisionError
    assert torch.equal(answer(model, batch), after)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_only_the_declared_tensors_are_trained(family, method):
    model = adapted(family, method)
    declared = {f"backbone.{name}" for part in model.row.trains for name in model.backbone.part(part)}
    if model.adapter is not None:
        declared |= {f"adapter.{name}" for name, _ in model.adapter.named_parameters()}
    assert set(model.trained()) == declared


@pytest.mark.parametrize(("family", "method"), CASES)
def test_every_trained_tensor_gets_a_gradient_and_no_other(family, method):
    model = adapted(family, method).train()
    result = training_step(model, model.backbone.frame, batch_for(model), loss_function("bce-iou"))
    result.loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif any(mask in name for mask in UNUSED_MASKS):
            assert (parameter.grad == 0).all(), name
        else:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("family", "method"), CASES)
def test_one_step_moves_every_trained_tensor_and_leaves_every_other_bit_equal(family, method):
    model = adapted(family, method)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    take_step(model, batch_for(model))
    own_buffers = {f"adapter.{name}" for name, _ in model.adapter.named_buffers()} if model.adapter else set()
    moves = set(model.trained()) | own_buffers
    for name, tensor in model.state_dict().items():
        still = any(mask in name for mask in UNUSED_MASKS) or name not in moves
        assert torch.equal(tensor, before[name]) == still, name


@pytest.mark.parametrize(("family", "method"), CASES)
def test_frozen_modules_stay_in_eval_mode(family, method):
    model = adapted(family, method).train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.adapter is None or all(module.training for module in model.adapter.modules())


@pytest.mark.parametrize(("family", "method"), CASES)
def test_the_encoder_keeps_nothing_for_backward(family, method):
    model = adapted(family, method).train()
    assert model.row.gradient_from is None
    for parameter in model.backbone.parameters():  # even if its weights could take a gradient
        parameter.requires_grad_(True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: None):
        embedding = model.encode(batch_for(model).frame)
        assert not kept
        model.backbone.encode(batch_for(model).frame)
    assert kept, "the check must be able to fail"
    assert not embedding.requires_grad


@pytest.mark.parametrize(("family", "method"), CASES)
def test_an_adapter_file_gives_a_fresh_model_the_same_output_and_holds_nothing_else(family, method, tmp_path):
    model = adapted(family, method)
    batch = batch_for(model)
    take_step(model, batch)
    save_adapter(tmp_path / "adapter.safetensors", model)
    _, state = read_adapter(tmp_path / "adapter.safetensors")
    buffers = {f"adapter.{name}" for name, _ in model.adapter.named_buffers()} if model.adapter else set()
    assert set(state) == set(model.trained()) | buffers
    fresh = adapted(family, method)
    load_adapter(tmp_path / "adapter.safetensors", fresh)
    assert torch.equal(answer(fresh, batch), answer(model, batch))


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_step_can_be_traced_without_values(family, method):
    model = adapted(family, method).train()
    batch = batch_for(model)
    assert batch.extra is not None or not model.row.reads_image
    with FakeTensorMode() as mode:
        state = {
            name: mode.from_tensor(tensor).requires_grad_(tensor.requires_grad)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        fake = Batch(
            frame=mode.from_tensor(batch.frame),
            prompts=Prompts(
                mode.from_tensor(batch.prompts.points), mode.from_tensor(batch.prompts.labels), has_box=True
            ),
            extra=None if batch.extra is None else mode.from_tensor(batch.extra),
            target=mode.from_tensor(batch.target),
            valid=mode.from_tensor(batch.valid),
            weight=mode.from_tensor(batch.weight),
        )
        result = training_step(
            lambda *inputs: functional_call(model, state, inputs),
            model.backbone.frame,
            fake,
            loss_function("bce-iou"),
        )
        result.loss.backward()
    assert all(state[name].grad is not None for name in model.trained())


@pytest.mark.parametrize(("family", "method"), CASES)
def test_half_precision_is_finite_and_close(family, method):
    model = adapted(family, method)
    batch = batch_for(model)
    full = answer(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = answer(model, batch)
    assert half.isfinite().all()
    assert (half - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize(("family", "method"), CASES)
def test_twenty_steps_learn_two_images(family, method):
    model = adapted(family, method)
    batch = batch_for(model)
    batch.target.zero_()
    batch.target[:, :, : batch.target.shape[-1] // 2] = 1
    losses = []
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)
    model.train()
    for _ in range(20):
        result = training_step(model, model.backbone.frame, batch, loss_function("bce-iou"))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("family", SMALL)
def test_several_classes_are_the_decoders_candidate_masks_in_turn(family):
    one, two = adapted(family, "decoder"), adapted(family, "decoder", classes=("disc", "cup"))
    batch = batch_for(one)
    candidates = one.backbone.decode(one.backbone.encode(batch.frame), batch.prompts, multimask=True).logits
    assert torch.equal(answer(two, batch), candidates[:, :2])


def test_more_classes_than_masks_are_refused():
    with pytest.raises(SettingError, match="4 classes"):
        adapted("sam-tiny", "decoder", classes=("a", "b", "c", "d"))


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="did you mean 'decoder'"):
        row_of("decoders")


def test_new_modules_depend_on_the_seed_alone():
    backbone = small_backbone("sam-tiny")
    torch.manual_seed(1)
    one = attach(backbone, "cad", seed=5).adapter_state()
    torch.manual_seed(2)
    same = attach(small_backbone("sam-tiny"), "cad", seed=5).adapter_state()
    other = attach(small_backbone("sam-tiny"), "cad", seed=6).adapter_state()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["adapter.conv_up.weight"], other["adapter.conv_up.weight"])
