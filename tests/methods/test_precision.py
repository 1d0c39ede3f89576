"""What `--precision bf16` stores and keeps, and what it must leave as it is."""

import pytest
import torch

from samfit.methods import METHODS, attach
from samfit.methods.precision import autocast, store_frozen
from samfit.runs import header_of
from samfit.testing import SMALL, small_backbone
from samfit.testing.case import Case, loss_of
from samfit.testing.kept import kept_bytes
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts


def model_of(family="sam-tiny", method="decoder", precision="bf16"):
    model = attach(small_backbone(family), method)
    store_frozen(model, precision)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", SMALL)
def test_frozen_weights_are_stored_in_bf16_and_all_else_in_float32(family, method):
    model = model_of(family, method)
    trained = model.trained()
    halves = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    frozen = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("backbone.image_encoder.", "backbone.mask_decoder.")) and name not in trained
    }
    assert halves == frozen
    assert any(name.startswith("backbone.image_encoder.") for name in halves) == (method != "full")
    assert {tensor.dtype for tensor in model.adapter_state().values()} <= {torch.float32, torch.int64}


def test_float32_changes_nothing():
    model, plain = model_of(precision="32"), small_backbone("sam-tiny")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor)
    assert not autocast("32", "cpu")._enabled


def test_the_header_of_an_adapter_file_is_that_of_float32():
    assert header_of(model_of()) == header_of(model_of(precision="32"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", SMALL)
def test_loss_and_gradients_are_near_those_of_float32(family, method):
    case = Case(METHODS[method], lambda: small_backbone(family))
    found = {}
    for precision in ("32", "bf16"):
        model = case.attached()
        store_frozen(model, precision)
        with autocast(precision, "cpu"):
            loss = loss_of(model, case.batch)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.trained().items()}
        assert {gradient.dtype for gradient in gradients.values() if gradient is not None} == {torch.float32}
        flat = [gradient.flatten() for gradient in gradients.values() if gradient is not None]
        found[precision] = float(loss.detach()), torch.cat(flat)
    (exact, exact_gradient), (rounded, rounded_gradient) = found["32"], found["bf16"]
    assert rounded == pytest.approx(exact, rel=0.01)
    assert rounded != exact
    assert torch.cosine_similarity(rounded_gradient, exact_gradient, dim=0) > 0.98


@pytest.mark.parametrize(("method", "share"), [("medical-adapter", 0.51), ("full", 0.65)])
@pytest.mark.parametrize("family", SMALL)
def test_tokens_embedding_and_what_is_kept_of_them_take_half_the_bytes(family, method, share):
    frame = torch.randn(2, 3, *[small_backbone(family).frame.size] * 2)
    kept, embeddings = {}, {}
    for precision in ("32", "bf16"):
        model = model_of(family, method, precision).train()
        model.checkpointing = True
        with kept_bytes(model) as counted, autocast(precision, "cpu"):
            embeddings[precision] = model.encode(frame)
            kept[precision] = counted()
    assert embeddings["bf16"].dtype == torch.bfloat16
    assert kept["bf16"] <= share * kept["32"]  # trained weights are kept rounded, too


@pytest.mark.parametrize("family", SMALL)
def test_the_mask_decoder_reads_picture_and_positions_in_bf16(family):
    model, seen = model_of(family), []
    model.backbone.mask_decoder.register_forward_pre_hook(lambda _, given: seen.extend(given[:2]))
    prompts = Prompts(
        torch.tensor([[[8.0, 8.0], [50.0, 60.0]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), True
    )
    with torch.no_grad(), autocast("bf16", "cpu"):
        model.backbone.decode(model.encode(torch.zeros(1, 3, *[model.backbone.frame.size] * 2)), prompts)
    assert [tensor.dtype for tensor in seen] == [torch.bfloat16] * 2


@pytest.mark.parametrize("family", SMALL)
def test_places_are_encoded_in_float32(family):
    model, exact = model_of(family), model_of(family, precision="32")
    seen = []
    for one in (model, exact):
        encoder = one.backbone.prompt_encoder
        places = encoder.shared_embedding if family.startswith("sam") else encoder.pe_layer
        places.register_forward_hook(lambda _, given, answer: seen.append(answer))
        points = torch.tensor([[[8.25, 8.5], [50.0, 60.0]]])
        prompts = Prompts(points, torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), has_box=True)
        with torch.no_grad(), autocast("bf16" if one is model else "32", "cpu"):
            one.backbone.decode(one.encode(torch.zeros(1, 3, *[one.backbone.frame.size] * 2)), prompts)
    half = len(seen) // 2
    assert half
    for rounded, answer in zip(seen[:half], seen[half:], strict=True):
        assert torch.equal(rounded, answer)
