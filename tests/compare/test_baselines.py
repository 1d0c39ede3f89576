"""What stands beside the runs: the mean mask as a pure function, and the budget of the U-Net."""

from pathlib import Path

import numpy as np
import pytest

from samfit.compare import unet
from samfit.compare.mean_mask import mean_mask
from samfit.compare.unet import budget
from samfit.errors import SettingError
from samfit.settings import TrainSettings


def test_the_mean_mask_is_where_half_of_the_masks_are():
    rng = np.random.default_rng(0)
    masks = [(rng.random((2, 8, 8)) > 0.5).astype(np.float32) for _ in range(4)]
    expected = sum(mask.astype(int) for mask in masks) >= 2
    np.testing.assert_array_equal(mean_mask(masks, side=8), expected)


def test_masks_of_any_size_and_aspect_count_alike():
    left = np.zeros((1, 40, 20), np.float32)
    left[:, :, :10] = 1
    wide = np.zeros((1, 4, 80), np.float32)
    wide[:, :, :40] = 1
    answer = mean_mask([left, wide, np.zeros((1, 16, 16), np.float32)], side=16)
    assert answer.shape == (1, 16, 16)
    assert answer[:, :, :7].all()
    assert not answer[:, :, 9:].any()


def test_no_masks_have_no_mean():
    with pytest.raises(ValueError, match="no masks"):
        mean_mask([])


def test_without_monai_the_u_net_says_what_to_install(monkeypatch):
    monkeypatch.setattr(unet, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'samfit\[metrics\]'"):
        unet.UNet(1)


@pytest.mark.parametrize(("changes", "steps"), [({}, 12), ({"max_steps": 5}, 5), ({"max_steps": 50}, 12)])
def test_the_budget_is_that_of_a_training(changes, steps):
    settings = TrainSettings(data=Path("d"), output=Path("o"), epochs=4, batch_size=3, **changes)
    assert budget(settings, 7) == steps
