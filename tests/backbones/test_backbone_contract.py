"""What every backbone promises, over the table's families in small numbers."""

import numpy as np
import pytest
import torch

from samfit.backbones import BACKBONES, card_of, load_backbone
from samfit.backbones.base import PARTS
from samfit.errors import SettingError
from samfit.testing import SMALL, small_backbone
from samfit.types import BOTTOM_RIGHT, POSITIVE, TOP_LEFT, Prompts

FAMILIES = list(SMALL)


def click(x: float, y: float, count: int = 1) -> Prompts:
    points = torch.tensor([[[x, y]]]).expand(count, 1, 2)
    return Prompts(points, torch.full((count, 1), POSITIVE), has_box=False)


def box(x1: float, y1: float, x2: float, y2: float) -> Prompts:
    return Prompts(
        torch.tensor([[[x1, y1], [x2, y2]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), has_box=True
    )


def frames(backbone, count=1):
    generator = torch.Generator().manual_seed(1)
    size = backbone.frame.size
    return torch.randn(count, 3, size, size, generator=generator)


def test_every_module_of_the_table_has_a_small_member():
    assert {card.module for card in SMALL.values()} == {card.module for card in BACKBONES.values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_of_every_station(family):
    backbone = small_backbone(family)
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    frame = backbone.frame.to_model(image)
    grid, width = backbone.grid, backbone.card.embedding_width
    assert frame.shape == (3, backbone.frame.size, backbone.frame.size)
    with torch.no_grad():
        embedding = backbone.encode(frame[None])
        answer = backbone.decode(embedding, click(20, 30))
    assert embedding.shape == (1, width, grid, grid)
    assert answer.logits.shape == (1, 4, 4 * grid, 4 * grid)
    assert answer.iou.shape == (1, 4)
    geometry = backbone.frame.geometry(60, 100)
    assert backbone.frame.to_original(answer.logits, geometry).shape == (1, 4, 60, 100)
    assert len(backbone.blocks) == backbone.card.depth


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("factor", [1, 2])
def test_other_image_sizes_work(family, factor):
    size = SMALL[family].image_size * factor
    backbone = small_backbone(family, image_size=size)
    with torch.no_grad():
        embedding = backbone.encode(frames(backbone))
        logits = backbone.decode(embedding, box(0, 0, size, size)).logits
    assert embedding.shape[-1] == size // backbone.card.patch
    assert logits.shape[-1] == 4 * embedding.shape[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_image_of_a_batch_gets_its_own_answer(family):
    backbone = small_backbone(family)
    images = frames(backbone, 2)
    with torch.no_grad():
        together = backbone.decode(backbone.encode(images), click(20, 30, 2)).logits
        alone = [backbone.decode(backbone.encode(image[None]), click(20, 30)).logits for image in images]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_in_half_precision_a_click_stays_where_it_is(family):
    backbone = small_backbone(family)
    encoded = []
    for module in backbone.prompt_encoder.modules():
        if "Position" in type(module).__name__:
            module.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        backbone.decode(backbone.encode(frames(backbone)), click(20, 30))
    assert len(encoded) == 2, "one for the click, one for the cells of the grid"
    assert all(output.dtype == torch.float32 for output in encoded)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_share_nothing_and_leave_out_what_no_loss_reaches(family):
    backbone = small_backbone(family)
    names = [name for part in PARTS for name in backbone.part(part)]
    everything = dict(backbone.named_parameters())
    assert len(names) == len(set(names))
    left_out = everything.keys() - set(names)
    assert all("iou_prediction_head" in name or "positional" in name for name in left_out), left_out
    assert any("iou_prediction_head" in name for name in left_out)
    for part in PARTS:
        assert all(everything[name] is parameter for name, parameter in backbone.part(part).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_published_names_are_one_to_one(family):
    backbone = small_backbone(family)
    names = backbone.published_names()
    assert names.keys() == backbone.state_dict().keys()
    assert len(set(names.values())) == len(names)


def _sam_state(size):
    backbone = small_backbone("sam-vit-b", image_size=size)
    return backbone, backbone.state_dict()


def test_at_the_published_size_position_tables_are_not_touched():
    pretrained = SMALL["sam-vit-b"].architecture["pretrained_grid"] * 16
    backbone, state = _sam_state(pretrained)
    fitted = backbone.fit_positions(state)
    assert all(fitted[name] is tensor for name, tensor in state.items())


def test_tables_that_were_made_for_another_image_size_already_are_not_touched_at_that_size():
    backbone, state = _sam_state(512)
    fitted = backbone.fit_positions(state)
    assert all(fitted[name] is tensor for name, tensor in state.items())


@pytest.mark.parametrize("size", [256, 512])
def test_at_other_sizes_only_absolute_and_global_tables_are_resized(size):
    pretrained = SMALL["sam-vit-b"].architecture["pretrained_grid"] * 16
    _, state = _sam_state(pretrained)
    backbone = small_backbone("sam-vit-b", image_size=size)
    fitted = backbone.fit_positions(state)
    resized = {name for name in state if fitted[name] is not state[name]}
    assert resized == {
        "image_encoder.pos_embed",
        "image_encoder.layers.1.attn.rel_pos_h",
        "image_encoder.layers.1.attn.rel_pos_w",
    }
    assert fitted["image_encoder.pos_embed"].shape == (1, size // 16, size // 16, 32)
    assert fitted["image_encoder.layers.1.attn.rel_pos_h"].shape == (2 * size // 16 - 1, 16)
    backbone.load_state_dict(fitted)


def test_a_resized_table_is_the_same_function_of_place():
    pretrained = SMALL["sam-vit-b"].architecture["pretrained_grid"]
    _, state = _sam_state(pretrained * 16)
    ramp = torch.arange(pretrained, dtype=torch.float32)
    state["image_encoder.pos_embed"] = ramp.reshape(1, -1, 1, 1).expand_as(state["image_encoder.pos_embed"])
    table = small_backbone("sam-vit-b", image_size=512).fit_positions(state)["image_encoder.pos_embed"]
    middle = table[0, 4:-4, 0, 0]
    torch.testing.assert_close(middle, 2 * torch.arange(4, 28) + 0.5)


@pytest.mark.parametrize("size", [100, 4])
def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused_with_the_nearest(size):
    with pytest.raises(SettingError, match=rf"--image-size {size}.*multiple of 8.*nearest is"):
        load_backbone("sam-tiny", weights="random", image_size=size)


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="did you mean 'sam-vit-b'"):
        card_of("sam-vitb")
