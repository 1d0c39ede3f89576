"""Encoders in little memory: the same numbers, with less kept for backward and less held without it."""

import pytest
import torch
from parity_support import error
from torch import nn

from samfit.backbones import card, chunks
from samfit.backbones.attention import GridAttention
from samfit.backbones.base import EncoderAdapter
from samfit.methods import attach
from samfit.testing import SMALL, small_backbone
from samfit.testing.held import peak_bytes
from samfit.testing.kept import kept_bytes

INSIDE = ["sam-adapter", "medical-adapter", "lora"]
"""Methods that work inside the encoder's blocks."""


def frames(backbone, count=2):
    size = backbone.frame.size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


def adapted(family, method, **options):
    """A model in double precision whose method's own numbers are all drawn, so that none hides a mistake."""
    model = attach(small_backbone(family), method, **options).double()
    torch.manual_seed(0)
    for parameter in model.trained().values():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("tokens", [20, 10**6])
@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("method", INSIDE)
def test_without_gradient_every_method_gives_the_same_embedding(method, family, tokens, monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", tokens)
    model = adapted(family, method)
    images = frames(model.backbone)
    ordinary = model.encode(images)
    assert ordinary.requires_grad
    with torch.no_grad():
        assert error(model.encode(images), ordinary) < 1e-14


@pytest.mark.parametrize("family", SMALL)
def test_images_that_pass_in_parts_give_the_same_embeddings(family, monkeypatch):
    model = adapted(family, "sam-adapter")
    images = frames(model.backbone, 3)
    with torch.no_grad():
        together = model.encode(images)
        monkeypatch.setattr(card, "_CELLS_AT_ONCE", 2 * model.backbone.grid**2)
        assert model.backbone.images_at_once == 2
        assert error(model.encode(images), together) < 1e-14


def test_a_large_image_passes_alone_and_small_ones_together():
    assert small_backbone("sam-vit-b", image_size=1024).images_at_once == 1
    assert small_backbone("sam-vit-b", image_size=2048).images_at_once == 1
    assert small_backbone("sam-vit-b", image_size=256).images_at_once == 16


@pytest.mark.parametrize("family", SMALL)
def test_a_block_without_gradient_overwrites_the_tokens_it_is_given_and_nothing_else(family):
    backbone = small_backbone(family)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    frame = frames(backbone).float()
    images = frame.clone()
    with torch.no_grad():
        backbone.encode(images)
        tokens = backbone.embed(images)
        assert tokens.is_contiguous()
        result = backbone.blocks[0](tokens)
    assert result is tokens
    assert torch.equal(images, frame)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert not torch.equal(backbone.blocks[0](tokens), tokens), "with gradient they stay"


class _Reads(EncoderAdapter):
    """Shares the first tokens themselves with every block."""

    def shared(self, frame, tokens):
        self.seen, self.first = tokens, tokens.clone()
        return tokens


@pytest.mark.parametrize("gradient_from", [None, 1])
@pytest.mark.parametrize("family", SMALL)
def test_what_the_blocks_share_is_not_overwritten(family, gradient_from):
    backbone, adapter = small_backbone(family), _Reads()
    backbone.encode(frames(backbone).float(), adapter, gradient_from=gradient_from)
    assert torch.equal(adapter.seen, adapter.first)


@pytest.mark.parametrize("family", SMALL)
def test_frozen_early_blocks_change_no_gradient_of_what_is_shared(family):
    model = adapted(family, "sam-adapter", late_blocks=1)
    images = frames(model.backbone)
    found = {}
    for first in (model.gradient_from, 0):  # from block 0 on no block overwrites anything
        model.gradient_from = first
        loss = model.encode(images).square().sum()
        trained = dict(model.adapter.named_parameters())
        found[first] = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
    for name, gradient in found[0].items():
        assert error(found[len(model.backbone.blocks) - 1][name], gradient) < 1e-12, name


@pytest.mark.parametrize("family", SMALL)
def test_an_encoder_without_gradient_takes_no_more_memory_for_four_images_than_for_one(family, monkeypatch):
    monkeypatch.setattr(card, "_CELLS_AT_ONCE", 1)
    backbone = small_backbone(family)
    peaks = {}
    for count in (1, 4):
        images = frames(backbone, count).float()
        with torch.no_grad():
            embeddings = backbone.encode(images).nbytes
            peaks[count] = peak_bytes(lambda images=images: backbone.encode(images)) - 2 * embeddings
    assert peaks[4] <= peaks[1]


@pytest.mark.parametrize("family", SMALL)
def test_without_gradient_few_tokens_pass_a_layer_at_once(family, monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", 64)
    backbone, seen = small_backbone(family), {}
    for index, block in enumerate(backbone.blocks):
        for name in ("attn", "mlp"):

            def see(module, inputs, name=(name, index)):
                seen[name] = max(seen.get(name, 0), inputs[0].shape[:-1].numel())

            block.get_submodule(name).register_forward_pre_hook(see)
    with torch.no_grad():
        backbone.encode(frames(backbone, 1).float())
    grid, windows = backbone.grid, [getattr(block, "window_size", 0) for block in backbone.blocks]
    for index, window in enumerate(windows):
        assert seen["mlp", index] <= 64
        in_row_of_windows = window * grid + window * (-grid % window) if window else grid**2
        assert seen["attn", index] == in_row_of_windows
    assert any(windows) == (backbone.card.module == "sam")


def test_a_block_of_windows_holds_less_than_its_tokens_without_gradient(monkeypatch):
    monkeypatch.setattr(chunks, "CELLS", 2**16)
    backbone = small_backbone("sam-vit-b", image_size=2048)
    block, tokens = backbone.blocks[0], torch.randn(1, 128, 128, 32)
    ordinary = peak_bytes(lambda: block(tokens))
    with torch.no_grad():
        lean = peak_bytes(lambda: block(tokens))
    assert ordinary > 4 * tokens.nbytes
    assert lean < tokens.nbytes


@pytest.mark.parametrize("family", SMALL)
def test_every_way_of_attention_gives_the_same_embedding(family):
    backbone = small_backbone(family).double()
    images = frames(backbone)
    found, kept = {}, {}
    for kind in ("eager", "chunked", "folded"):
        backbone.attend(kind)
        assert {block.attn.kind for block in backbone.blocks} == {kind}
        assert all(isinstance(block.attn, GridAttention) for block in backbone.blocks)
        found[kind] = backbone.encode(images)
        with kept_bytes(backbone.requires_grad_(True)) as counted:
            backbone.encode(images)
        kept[kind] = counted()
        backbone.requires_grad_(False)
    for kind in ("chunked", "folded"):
        assert error(found[kind], found["eager"]) < 1e-14
        assert kept[kind] < kept["eager"], "eager keeps maps"


@pytest.mark.parametrize("family", SMALL)
def test_the_frozen_mlp_of_a_block_keeps_its_input_alone(family):
    backbone = small_backbone(family)
    x = torch.randn(1, 100, backbone.card.architecture["width"], requires_grad=True)
    with kept_bytes(backbone) as counted:
        backbone.blocks[0].mlp(x)
        assert counted() == x.nbytes


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("method", INSIDE)
def test_with_checkpointing_the_encoder_keeps_the_input_of_each_block_and_of_the_neck(method, family):
    model = adapted(family, method).train()
    images = frames(model.backbone)
    tokens = model.backbone.embed(images).nbytes
    model.checkpointing = True
    with kept_bytes(model) as counted:
        model.encode(images)
        blocks_and_neck = counted()
    model.gradient_from = None
    with kept_bytes(model) as counted, torch.enable_grad():
        model.adapter.shared(images, model.backbone.embed(images))
    assert blocks_and_neck - counted() <= (len(model.backbone.blocks) + 1) * tokens + tokens // 2
