"""EfficientSAM in small numbers: shapes, prompts, parts and image sizes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samfit.backbones import card_of
from samfit.backbones.base import PARTS
from samfit.backbones.efficient_sam import EfficientSam, build
from samfit.backbones.initial import draw_weights
from samfit.errors import SettingError, WeightsError
from samfit.types import BOTTOM_RIGHT, NOTHING, POSITIVE, TOP_LEFT, Prompts

CARD = replace(
    card_of("efficientsam-ti"),
    depth=2,
    architecture=card_of("efficientsam-ti").architecture | {"width": 32, "heads": 2, "mlp_width": 64},
)


def small(size: int = 64) -> EfficientSam:
    model = build(CARD, size, "squeeze").eval().requires_grad_(False)
    draw_weights(model, seed=0)
    return model


MODEL = small()
EMBEDDING = MODEL.encode(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def prompts(*slots: tuple[float, float, int]) -> Prompts:
    points = torch.tensor([[slot[:2] for slot in slots]]).reshape(1, -1, 2)
    labels = torch.tensor([[slot[2] for slot in slots]], dtype=torch.int64)
    return Prompts(points, labels, has_box=bool(slots) and slots[-1][2] == BOTTOM_RIGHT)


def answer(given: Prompts) -> torch.Tensor:
    return MODEL.decode(EMBEDDING, given).logits


def same(a: Prompts, b: Prompts) -> bool:
    return torch.allclose(answer(a), answer(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [16, 48, 64, 224])
def test_shapes_at_any_multiple_of_the_patch(size: int):
    model = small(size)
    embedding = model.encode(torch.randn(2, 3, size, size))
    both = Prompts(torch.rand(2, 2, 2) * size, torch.tensor([[1, -1], [2, 3]]), has_box=False)
    decoded = model.decode(embedding, both)
    grid = size // 16
    assert embedding.shape == (2, 256, grid, grid)
    assert decoded.logits.shape == (2, 4, 4 * grid, 4 * grid)
    assert decoded.iou.shape == (2, 4)


def test_images_of_a_batch_do_not_touch_each_other():
    frames = torch.randn(2, 3, 64, 64)
    both = Prompts(torch.rand(2, 1, 2) * 64, torch.ones(2, 1, dtype=torch.int64), has_box=False)
    together = MODEL.decode(MODEL.encode(frames), both).logits
    for i in range(2):
        one = Prompts(both.points[i : i + 1], both.labels[i : i + 1], has_box=False)
        alone = MODEL.decode(MODEL.encode(frames[i : i + 1]), one).logits
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(x=st.floats(-1000, 1000, width=32), y=st.floats(-1000, 1000, width=32), empty=st.integers(0, 8))
def test_empty_slots_change_nothing_wherever_they_point(x: float, y: float, empty: int):
    click = (20.0, 30.0, POSITIVE)
    assert same(prompts(click), prompts(*[(x, y, NOTHING)] * empty, click))


def test_no_prompt_at_all_is_an_answer():
    assert same(prompts(), prompts((5.0, 5.0, NOTHING)))
    assert torch.isfinite(answer(prompts())).all()


@pytest.mark.parametrize(
    ("changed", "label"),
    [((21.0, 30.0), POSITIVE), ((20.0, 30.0), TOP_LEFT), ((20.0, 30.0), BOTTOM_RIGHT)],
)
def test_the_mask_depends_on_place_and_label(changed: tuple[float, float], label: int):
    assert not same(prompts((20.0, 30.0, POSITIVE)), prompts((*changed, label)))


def test_of_more_than_six_points_the_last_clicks_are_dropped_and_never_the_box():
    clicks = [(8.0 * i, 60.0 - 7 * i, POSITIVE) for i in range(7)]
    corners = [(3.0, 5.0, TOP_LEFT), (50.0, 40.0, BOTTOM_RIGHT)]
    assert same(prompts(*clicks), prompts(*clicks[:6]))
    assert same(prompts(*clicks, *corners), prompts(*clicks[:4], *corners))
    assert not same(prompts(*clicks, *corners), prompts(*clicks[:6]))


def test_a_mask_prompt_is_refused():
    with pytest.raises(SettingError, match="efficientsam-ti takes clicks and boxes but no mask"):
        MODEL.decode(EMBEDDING, replace(prompts(), mask=torch.zeros(1, 1, 16, 16)))


def test_parts_hold_every_parameter_but_the_head_that_no_loss_reaches():
    parts = {part: MODEL.part(part) for part in PARTS}
    named = dict(MODEL.named_parameters())
    for part, parameters in parts.items():
        assert parameters
        assert all(name.startswith(f"{part}.") and named[name] is p for name, p in parameters.items())
    left = named.keys() - {name for parameters in parts.values() for name in parameters}
    assert len(left) == 6
    assert all(name.startswith("mask_decoder.iou_prediction_head.") for name in left)
    assert len(MODEL.blocks) == CARD.depth


def test_every_trained_tensor_of_the_mask_decoder_gets_a_gradient():
    model = small()
    decoder = model.part("mask_decoder")
    for parameter in decoder.values():
        parameter.requires_grad_(True)
    model.decode(EMBEDDING, prompts((20.0, 30.0, POSITIVE))).logits.square().mean().backward()
    assert [name for name, parameter in decoder.items() if parameter.grad is None] == []


def test_the_position_table_keeps_its_published_shape_at_every_size():
    model = small(256)
    state = model.state_dict()
    assert model.fit_positions(state) is state
    assert state["image_encoder.pos_embed"].shape == (1, 197, 32)
    state["image_encoder.pos_embed"] = torch.zeros(1, 257, 32)
    with pytest.raises(
        WeightsError, match=r"image_encoder.pos_embed has shape \(1, 257, 32\).*\(1, 197, 32\)"
    ):
        model.fit_positions(state)


def test_at_the_pretrained_grid_positions_are_the_table_itself():
    encoder = small(224).image_encoder
    torch.testing.assert_close(encoder.positions(14), encoder.pos_embed[:, 1:], rtol=0, atol=0)
