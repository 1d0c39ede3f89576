"""More masks than the published four, for more than three classes."""

import re

import pytest
import torch

from samfit.backbones.base import Backbone, Decoded
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import header_of, load_adapter, read_adapter, save_adapter
from samfit.testing import SMALL, small_backbone
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts

CLASSES = ("skin", "hair", "mole", "vein", "scar")
"""Masks 1 to 5, of which the last two are added."""
BOX = Prompts(
    torch.tensor([[[3.0, 5.0], [50.0, 60.0]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), has_box=True
)


def decoded(backbone: Backbone) -> Decoded:
    """Return what the decoder answers to a random embedding."""
    shape = (1, backbone.card.embedding_width, backbone.grid, backbone.grid)
    return backbone.decode(torch.randn(shape, generator=torch.Generator().manual_seed(1)), BOX)


def changed(model: AdaptedModel) -> AdaptedModel:
    """Return a model all of whose trained tensors have moved."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.trained().values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def answer(model: AdaptedModel) -> torch.Tensor:
    size = model.backbone.frame.size
    frame = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(3))
    return model(frame, None, BOX)


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize(
    ("count", "sources"), [(5, [0, 1, 2, 3, 1]), (12, [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2])]
)
def test_masks_beyond_the_published_ones_are_copies_of_the_candidates_in_turn(family, count, sources):
    plain, wider = small_backbone(family), small_backbone(family)
    wider.add_masks(count)
    before, after = plain.state_dict(), wider.state_dict()
    assert before.keys() <= after.keys()
    for name, tensor in after.items():
        place, _, rest = name.partition(".output_hypernetworks_mlps.")
        if rest:
            mask, _, tensor_name = rest.partition(".")
            original = before[f"{place}.output_hypernetworks_mlps.{sources[int(mask)]}.{tensor_name}"]
        elif before[name].shape != tensor.shape:
            assert ".mask_tokens." in name or ".iou_prediction_head." in name
            original = before[name][sources]
        else:
            original = before[name]
        assert torch.equal(tensor, original), name
    assert len(wider.mask_decoder.output_hypernetworks_mlps) == count
    answers = decoded(wider)
    assert answers.logits.shape == (1, count, 4 * wider.grid, 4 * wider.grid)
    assert answers.iou.shape == (1, count)


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("count", [1, 4])
def test_up_to_four_masks_nothing_is_added(family, count):
    backbone = small_backbone(family)
    before = dict(backbone.named_parameters())
    backbone.add_masks(count)
    after = dict(backbone.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is parameter for name, parameter in before.items())


@pytest.mark.parametrize("family", SMALL)
def test_added_masks_are_frozen_as_the_others_are_and_drawn_from_nothing(family):
    backbone = small_backbone(family)
    random_state = torch.get_rng_state()
    backbone.add_masks(6)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("family", SMALL)
def test_training_a_copy_moves_neither_its_source_nor_the_other_copy(family):
    backbone = small_backbone(family)
    backbone.add_masks(8)
    kernels = backbone.mask_decoder.requires_grad_(True).output_hypernetworks_mlps
    decoded(backbone).logits[:, 4].sum().backward()
    for mask in range(8):
        for name, parameter in kernels[mask].named_parameters():
            assert parameter.grad.any() == (mask == 4), (mask, name)
    tokens = backbone.mask_decoder.mask_tokens.weight.detach()
    source = tokens[1].clone()
    tokens[4] += 1
    assert torch.equal(tokens[1], source)
    assert torch.equal(tokens[7], source)


@pytest.mark.parametrize("family", SMALL)
def test_every_tensor_of_a_wider_decoder_has_a_published_name(family):
    backbone = small_backbone(family)
    pattern = set(backbone.published_names().values())
    backbone.add_masks(12)
    names = backbone.published_names()
    assert names.keys() == backbone.state_dict().keys()
    assert len(set(names.values())) == len(names)
    numbered = re.compile(r"(?<=output_hypernetworks_mlps\.)\d+")
    assert {numbered.sub("0", name) for name in names.values()} <= pattern
    assert {int(match[0]) for name in names.values() if (match := numbered.search(name))} == {*range(12)}


@pytest.mark.parametrize("family", SMALL)
def test_five_classes_are_the_masks_from_1_to_5(family):
    model = attach(small_backbone(family), "decoder", classes=CLASSES)
    wider = small_backbone(family)
    wider.add_masks(6)
    size = model.backbone.frame.size
    frame = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        masks = wider.decode(wider.encode(frame), BOX).logits
    assert torch.equal(answer(model), masks[:, 1:])
    assert any(".output_hypernetworks_mlps.5." in name for name in model.trained())


@pytest.mark.parametrize("family", SMALL)
def test_an_adapter_of_five_classes_comes_back_on_the_same_base(family, tmp_path):
    model = changed(attach(small_backbone(family), "decoder", classes=CLASSES))
    fresh = attach(small_backbone(family), "decoder", classes=CLASSES)
    assert not torch.equal(answer(fresh), answer(model))
    save_adapter(tmp_path / "adapter.safetensors", model)
    header, state = read_adapter(tmp_path / "adapter.safetensors")
    assert header.classes == CLASSES
    one_class = attach(small_backbone(family), "decoder")
    assert header.base_sha256 == header_of(one_class).base_sha256
    assert state.keys() == model.trained().keys() > one_class.trained().keys()
    load_adapter(tmp_path / "adapter.safetensors", fresh)
    assert torch.equal(answer(fresh), answer(model))
    again = attach(small_backbone(family, seed=1), "decoder", classes=CLASSES)
    again.load_state_dict(model.state_dict())
    assert torch.equal(answer(again), answer(model))


@pytest.mark.parametrize("family", SMALL)
def test_with_five_classes_disabled_is_the_base_with_its_copies(family):
    base = answer(attach(small_backbone(family), "decoder", classes=CLASSES))
    model = attach(small_backbone(family), "decoder", classes=CLASSES)
    model.keep_base()
    adapted = answer(changed(model))
    with model.disabled():
        assert torch.equal(answer(model), base)
    assert torch.equal(answer(model), adapted)
    assert not torch.equal(adapted, base)
