"""What SAM-Adapter adds where: on every family, with all blocks and with the last ones alone."""

import pytest
import torch
import torch.nn.functional as F

from samfit.backbones.base import UNCHANGED
from samfit.methods import attach
from samfit.methods.high_frequency import high_frequency
from samfit.methods.sam_adapter import published_names
from samfit.testing import SMALL, small_backbone


def frames(backbone):
    size = backbone.frame.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", SMALL)
def test_the_token_and_the_patch_of_one_place_are_summed(family):
    backbone = small_backbone(family)
    adapter, frame, patch = attach(backbone, "sam-adapter").adapter, frames(backbone), backbone.card.patch
    row, column = 1, 2
    rows, columns = slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch)
    with torch.no_grad():
        tokens = backbone.embed(frame)
        shared = adapter.shared(frame, tokens)
        detail = high_frequency(frame)[..., rows, columns].flatten(1)
        place = row * backbone.grid + column
        token = tokens.reshape(2, backbone.grid**2, -1)[:, place]
        expected = adapter.tokens(token) + adapter.patches(detail)
    assert shared.shape == (*tokens.shape[:-1], tokens.shape[-1] // 4)
    torch.testing.assert_close(shared.reshape(2, backbone.grid**2, -1)[:, place], expected)


@pytest.mark.parametrize("late_blocks", [None, 1])
@pytest.mark.parametrize("family", SMALL)
def test_each_place_is_given_its_own_addition(family, late_blocks):
    model = attach(small_backbone(family), "sam-adapter", late_blocks=late_blocks)
    backbone, adapter, frame = model.backbone, model.adapter, frames(model.backbone)
    first = 0 if late_blocks is None else backbone.card.depth - late_blocks
    with torch.no_grad():
        tokens = backbone.embed(frame)
        shared = adapter.shared(frame, tokens)
        additions = {name: adapter.up(F.gelu(down(shared))) for name, down in adapter.down.items()}
        for index, block in enumerate(backbone.blocks):
            if index == first:
                tokens = tokens + additions[str(index)]
            tokens = block(tokens)
            if index >= first:
                tokens = tokens + additions[str(index + 1)]
        torch.testing.assert_close(model.encode(frame), backbone.neck(tokens))


def test_with_late_blocks_only_they_have_projections():
    model = attach(small_backbone("sam-tiny"), "sam-adapter", late_blocks=2)
    modules = {name.rpartition(".")[0] for name in model.adapter.state_dict()}
    assert modules == {"tokens", "patches", "down.2", "down.3", "down.4", "up"}
    assert [model.adapter.block(index) is UNCHANGED for index in range(4)] == [True, True, False, False]


def test_with_late_blocks_projections_keep_the_published_name_of_their_place():
    adapter = attach(small_backbone("sam-tiny"), "sam-adapter", late_blocks=1).adapter
    names = published_names(adapter)
    assert names.keys() == adapter.state_dict().keys()
    assert names["down.4.bias"] == "image_encoder.task_adapter_blocks.4.down_projection.bias"
