"""What an adapted model keeps of its mask decoder for backward, and that images may pass it in parts."""

import pytest
import torch
from parity_support import error

from samfit.backbones import card
from samfit.methods import attach
from samfit.testing import SMALL, small_backbone
from samfit.testing.held import peak_bytes
from samfit.testing.kept import kept_bytes
from samfit.types import POSITIVE, Prompts


def inputs(model, count):
    generator = torch.Generator().manual_seed(1)
    size = model.backbone.frame.size
    points = size * torch.rand(count, 2, 2, generator=generator)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images, None, Prompts(points, torch.full((count, 2), POSITIVE), has_box=False)


@pytest.mark.parametrize("family", SMALL)
def test_with_checkpointing_the_mask_decoder_keeps_the_embedding_alone(family):
    model = attach(small_backbone(family), "decoder").train()
    given = inputs(model, 2)
    kept = {}
    for model.checkpointing in (False, True):
        with kept_bytes(model) as counted:
            model(*given)
            kept[model.checkpointing] = counted()
    embedding = model.encode(given[0]).nbytes
    assert kept[False] > 4 * embedding
    assert kept[True] <= embedding + 64


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_images_that_pass_in_parts_give_the_same_logits_and_gradients(family, checkpointing, monkeypatch):
    model = attach(small_backbone(family), "decoder").train()
    model.checkpointing = checkpointing
    given = inputs(model, 3)
    found = {}
    for at_once in (3, 2):
        monkeypatch.setattr(card, "_CELLS_AT_ONCE", at_once * model.backbone.grid**2)
        logits = model(*given)
        gradients = torch.autograd.grad(logits.square().mean(), list(model.trained().values()))
        found[at_once] = logits, torch.cat([gradient.flatten() for gradient in gradients])
    for part, whole in zip(found[2], found[3], strict=True):
        assert error(part, whole) < 1e-5


def test_a_step_of_the_decoder_takes_little_more_memory_for_four_images_than_for_one(monkeypatch):
    monkeypatch.setattr(card, "_CELLS_AT_ONCE", 1)
    model = attach(small_backbone("sam-vit-b"), "decoder").train()
    model.checkpointing = True
    peaks = {}
    for count in (1, 4):
        given = inputs(model, count)
        peaks[count] = peak_bytes(lambda given=given: model(*given).square().mean().backward())
    assert peaks[4] < 1.5 * peaks[1]


def test_prompts_are_split_by_image():
    points, labels = torch.rand(3, 2, 2), torch.arange(6).view(3, 2)
    mask = torch.rand(3, 1, 4, 4)
    first, last = Prompts(points, labels, has_box=True, mask=mask).split(2)
    assert torch.equal(first.points, points[:2])
    assert torch.equal(last.labels, labels[2:])
    assert torch.equal(last.mask, mask[2:])
    assert last.has_box
    assert [part.mask for part in Prompts(points, labels, has_box=True).split(1)] == [None] * 3
