"""What parity with the published code does not cover of `medical-adapter`."""

import pytest
import torch
from torch import nn

from samfit.backbones.base import UNCHANGED
from samfit.methods import attach
from samfit.methods.medical_adapter import MedicalBlock, published_names
from samfit.testing import SMALL, small_backbone


def adapted(family, **options):
    return attach(small_backbone(family), "medical-adapter", **options)


def frames(model):
    size = model.backbone.frame.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", SMALL)
def test_every_adapter_of_every_family_changes_the_embedding_and_learns(family):
    model = adapted(family)
    images = frames(model)
    embedding = model.encode(images)
    assert not torch.equal(embedding, model.backbone.encode(images))
    embedding.square().sum().backward()
    width = SMALL[family].architecture["width"]
    for index in range(SMALL[family].depth):
        block = model.adapter.block(index)
        assert isinstance(block, MedicalBlock)
        for bottleneck in (block.space, block.mlp):
            assert bottleneck.fc1.weight.shape == (width // 4, width)
            assert all(parameter.grad.abs().max() > 0 for parameter in bottleneck.parameters())


@pytest.mark.parametrize("family", SMALL)
def test_the_adapter_after_attention_sees_the_tokens_as_attention_does(family):
    model = adapted(family)
    attended, adapted_ones = [], []
    for index, block in enumerate(model.backbone.blocks):
        block.attn.proj.register_forward_hook(lambda module, inputs, output: attended.append(output.shape))
        model.adapter.block(index).space.register_forward_pre_hook(
            lambda module, inputs: adapted_ones.append(inputs[0].shape)
        )
    model.encode(frames(model))
    assert len(adapted_ones) == SMALL[family].depth
    assert adapted_ones == attended


def test_in_sam_that_is_the_padded_window():
    model = adapted("sam-vit-b")
    seen = []
    model.adapter.block(0).space.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    with torch.no_grad():
        model.encode(frames(model)[:1])
    assert seen == [(4, 14, 14, 32)], "a grid of 16 is padded to four windows of 14"


def test_late_blocks_are_adapted_alone_and_keep_their_index():
    model, every = adapted("sam-tiny", late_blocks=1), adapted("sam-tiny")
    assert {name.split(".")[1] for name in model.adapter.state_dict()} == {"3"}
    assert all(model.adapter.block(index) is UNCHANGED for index in range(3))
    every.adapter.load_state_dict(model.adapter.state_dict(), strict=False)
    for index in range(3):
        block = every.adapter.block(index)
        for layer in (block.space.fc2, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    images = frames(model)
    with torch.no_grad():
        assert torch.equal(model.encode(images), every.encode(images))


def test_published_names_of_late_blocks_are_those_of_the_same_blocks():
    late, every = adapted("sam-tiny", late_blocks=2), adapted("sam-tiny")
    names = published_names(every.adapter)
    assert names["blocks.3.space.fc1.weight"] == "image_encoder.blocks.3.Space_Adapter.D_fc1.weight"
    assert names["blocks.0.mlp.fc2.bias"] == "image_encoder.blocks.0.MLP_Adapter.D_fc2.bias"
    assert published_names(late.adapter).items() <= names.items()
    assert len(published_names(late.adapter)) == len(names) / 2 == 16


def test_the_adapters_start_as_torch_draws_linear_layers():
    block = adapted("sam-tiny").adapter.block(0)
    for layer in (block.space.fc1, block.space.fc2, block.mlp.fc1, block.mlp.fc2):
        bound = layer.in_features**-0.5
        for drawn in (layer.weight, layer.bias):
            assert 0.9 * bound < drawn.abs().max() <= bound
