"""Backbones as a published training code builds them, for its checkpoints."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from samfit.backbones import BACKBONES, card_of
from samfit.backbones.base import Backbone
from samfit.backbones.initial import draw_weights
from samfit.backbones.weights import load_base
from samfit.errors import SettingError, WeightsError
from samfit.testing import SMALL, small_backbone

VARIANTS = [(family, variant) for family, card in SMALL.items() for variant in card.variants]
EVERY_VARIANT = pytest.mark.parametrize(("family", "variant"), VARIANTS)
MEDICAL = "medical-sam-adapter"


def build(family: str, variant: str, image_size: int) -> Backbone:
    card = SMALL[family].variant(variant)
    backbone = import_module(f"samfit.backbones.{card.module}").build(card, image_size, card.fit)
    draw_weights(backbone, 0)
    return backbone.eval().requires_grad_(False)


def answers(backbone: Backbone) -> torch.Tensor:
    size = backbone.frame.size
    return backbone.encode(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))


def test_every_backbone_that_others_published_has_the_variant_of_medical_sam_adapter():
    assert {name for name, card in BACKBONES.items() if MEDICAL in card.variants} == {
        name for name, card in BACKBONES.items() if card.weights.address is not None
    }
    assert {family for family, _ in VARIANTS} == {"sam-vit-b", "efficientsam-ti"}


def test_a_backbone_without_the_variant_says_so():
    with pytest.raises(SettingError, match="--variant medical-sam-adapter: sam-tiny has no variants"):
        card_of("sam-tiny", MEDICAL)


@EVERY_VARIANT
def test_random_relative_positions_are_drawn_small(family, variant):
    tables = [
        table
        for name, table in build(family, variant, 128).named_parameters()
        if ".rel_" in name and name.startswith("image_encoder.")
    ]
    assert tables
    for table in tables:
        assert 0.01 < table.std() < 0.03


@EVERY_VARIANT
def test_a_file_with_the_names_of_the_variant_loads(family, variant, tmp_path: Path):
    wrote = build(family, variant, 128)
    names = wrote.published_names()
    assert names != small_backbone(family).published_names()
    path = tmp_path / "base.safetensors"
    save_file({names[name]: tensor for name, tensor in wrote.state_dict().items()}, path)
    reads = build(family, variant, 128)
    draw_weights(reads, 1)
    load_base(reads, path, seed=0)
    assert torch.equal(answers(reads), answers(wrote))


def test_sams_relative_positions_may_be_of_this_image_size_or_of_the_pretrained():
    published = build("sam-vit-b", MEDICAL, 1024).state_dict()
    small = build("sam-vit-b", MEDICAL, 256)
    own = small.state_dict() | {"image_encoder.pos_embed": published["image_encoder.pos_embed"]}
    fitted = small.fit_positions(own)
    assert [name for name in own if fitted[name] is not own[name]] == ["image_encoder.pos_embed"]
    assert fitted["image_encoder.pos_embed"].shape == (1, 16, 16, 32)
    table = "image_encoder.layers.1.attn.rel_pos_h"
    assert published[table].shape == (127, 16)
    assert small.fit_positions(published)[table].shape == (31, 16)
    third = build("sam-vit-b", MEDICAL, 512).state_dict()
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.rel_h has shape \(63, 16\), .*127.* or .*31"):
        small.fit_positions(own | {table: third[table]})


def test_efficient_sams_relative_positions_must_be_of_this_image_size(tmp_path: Path):
    other, backbone = build("efficientsam-ti", MEDICAL, 256), build("efficientsam-ti", MEDICAL, 128)
    names = other.published_names()
    path = tmp_path / "base.safetensors"
    save_file({names[name]: tensor for name, tensor in other.state_dict().items()}, path)
    with pytest.raises(WeightsError) as caught:
        load_base(backbone, path, seed=0)
    message = str(caught.value)
    assert "image_encoder.blocks.0.attn.rel_h has shape (31, 16)" in message
    assert "(15, 16) at --image-size 128" in message
    assert message.count("rel_") == 1, "a table that does not fit is named once"


def test_relative_positions_of_zero_change_nothing():
    card = SMALL["efficientsam-ti"].variant(MEDICAL)
    plain = small_backbone("efficientsam-ti")
    with_tables = replace(card, architecture=card.architecture | {"norm_eps": 1e-6})
    relative = import_module("samfit.backbones.efficient_sam").build(with_tables, 128, card.fit)
    zeros = {
        name: torch.zeros_like(table) for name, table in relative.state_dict().items() if ".rel_" in name
    }
    relative.load_state_dict(plain.state_dict() | zeros)
    torch.testing.assert_close(answers(relative.eval().requires_grad_(False)), answers(plain))


def test_transformers_has_no_sam_of_the_variant():
    assert small_backbone("sam-vit-b").hub_names()
    assert build("sam-vit-b", MEDICAL, 256).hub_names() == {}
