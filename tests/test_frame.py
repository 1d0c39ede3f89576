"""The model frame: everything that goes through it lands in the same place, and comes back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samfit.frame import Frame
from samfit.methods.cad import read

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FRAMES = {
    "pad": Frame(128, MEAN, STD),
    "squeeze": Frame(128, MEAN, STD, fit="squeeze"),
    "efficientsam": Frame(128, MEAN, STD, fit="squeeze", resampling="torch", upsampling="bicubic"),
}
sides = st.integers(20, 400)


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """A black image with one bright rectangle off the centre, its mask, and its middle as (x, y)."""
    top, left = height // 8, width // 2
    bottom, right = top + max(4, height // 4), left + max(4, width // 4)
    mask = np.zeros((1, height, width), dtype=np.float32)
    mask[:, top:bottom, left:right] = 1
    image = np.repeat((mask[0] * 255).astype(np.uint8)[..., None], 3, axis=2)
    return image, mask, ((left + right - 1) / 2, (top + bottom - 1) / 2)


def middle(weights: torch.Tensor) -> tuple[float, float]:
    """The centre of mass of (H, W) as (x, y), in pixels."""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in weights.shape), indexing="ij")
    return float((x * weights).sum() / weights.sum()), float((y * weights).sum() / weights.sum())


@pytest.mark.parametrize("name", FRAMES)
@given(height=sides, width=sides)
@settings(max_examples=25)
def test_image_mask_point_and_the_adapters_image_land_in_the_same_place(name, height, width):
    frame = FRAMES[name]
    image, mask, (x, y) = scene(height, width)
    geometry = frame.geometry(height, width)
    point = frame.points_to_model(torch.tensor([x + 0.5, y + 0.5]), geometry) - 0.5
    pixels = frame.to_model(image)[0] * STD[0] + MEAN[0]
    pixels[geometry.rows :] = pixels[:, geometry.columns :] = 0
    target, valid = frame.target(mask)
    half = read(image, frame)[0]
    found = [middle(pixels.clamp(min=0)), middle(target[0])]
    found.append(tuple(2 * value + 0.5 for value in middle(half)))
    for place in found:
        assert place == pytest.approx(tuple(point.tolist()), abs=1.5)
    assert valid.sum() == geometry.rows * geometry.columns
    assert (target * (1 - valid)).sum() == 0


@pytest.mark.parametrize("name", FRAMES)
@given(height=sides, width=sides)
@settings(max_examples=25)
def test_logits_come_home_to_where_the_mask_was(name, height, width):
    frame = FRAMES[name]
    _, mask, place = scene(height, width)
    low = torch.nn.functional.interpolate(frame.target(mask)[0][None] * 20 - 10, (64, 64), mode="area")
    home = frame.to_original(low, frame.geometry(height, width))[0, 0]
    assert home.shape == (height, width)
    scale = max(height, width) / 64
    assert middle((home > 0).float()) == pytest.approx(place, abs=1 + scale)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_no_side_vanishes_and_the_longest_fills_the_frame(height, width):
    geometry = FRAMES["pad"].geometry(height, width)
    assert min(geometry.rows, geometry.columns) >= 1
    assert max(geometry.rows, geometry.columns) == 128


def test_the_adapters_image_is_padded_like_the_frame_and_its_detail_knows_nothing_of_padding():
    image = np.full((50, 100, 3), 200, dtype=np.uint8)
    extra = read(image, FRAMES["pad"])
    assert extra.shape == (6, 64, 64)
    assert (extra[:3, :32] == 200).all()
    assert (extra[:, 32:] == 0).all()
    assert extra[3:].abs().max() < 1e-3, "an even image has no detail; the edge of the padding is none"


def test_an_area_that_shrinks_is_averaged():
    mask = np.zeros((1, 256, 256), dtype=np.float32)
    mask[:, ::2] = 1
    target, _ = FRAMES["pad"].target(mask)
    assert torch.allclose(target, torch.tensor(0.5))
