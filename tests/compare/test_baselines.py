"""What stands beside the runs: the mean mask as a pure function, and the budget of the U-Net."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_support import drawn_data
from job_support import jobs_named

import samfit.compare.mean_mask as baseline
from samfit.compare import unet
from samfit.compare.jobs import budget
from samfit.compare.mean_mask import mean_mask
from samfit.data.reading import read_masks
from samfit.defaults import resolve
from samfit.errors import RunError
from samfit.settings import TrainSettings


def test_the_mean_mask_is_the_share_of_the_masks_at_each_pixel():
    masks = [np.array([[[1, 1, 0, 0.5]]], np.float32), np.array([[[1, 0, 0, 0.25]]], np.float32)]
    squares = [np.tile(mask, (1, 4, 1)) for mask in masks]
    np.testing.assert_array_equal(mean_mask(squares, side=4), np.tile([[[1, 0.5, 0, 0.375]]], (1, 4, 1)))


def test_masks_of_any_size_and_aspect_count_alike():
    left = np.zeros((1, 40, 20), np.float32)
    left[:, :, :10] = 1
    wide = np.zeros((1, 4, 80), np.float32)
    wide[:, :, :40] = 1
    answer = mean_mask([left, wide, np.zeros((1, 16, 16), np.float32)], side=16)
    assert answer.shape == (1, 16, 16)
    np.testing.assert_allclose(answer[:, :, :7], 2 / 3, rtol=1e-6)
    assert answer[:, :, 9:].max() == 0


def test_the_answer_of_the_mean_mask_is_a_probability(monkeypatch, tmp_path, tmp_path_factory):
    scored = []
    monkeypatch.setattr(baseline, "write_scores", lambda _, data, model, *__: scored.append((data, model)))
    monkeypatch.setattr(baseline, "write_summary", lambda *_: None)
    train = {"dataset": "isic2016", "output": tmp_path, "backbone": "sam-tiny", "weights": "random"}
    settings = resolve(TrainSettings(data=drawn_data(tmp_path_factory), **train))
    [job] = jobs_named(tmp_path, "mean-mask")
    baseline.score_mean_mask(replace(job, train=settings))
    [(data, model)] = scored
    reading, classes = data.inspection.reading, data.found.classes
    expected = mean_mask(read_masks(sample, reading, classes) for sample in data.training)
    assert ((expected > 0.2) & (expected < 0.4)).any()
    for answer in model(torch.zeros(2, 3, 8, 8)).sigmoid():
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_no_masks_have_no_mean():
    with pytest.raises(ValueError, match="no masks"):
        mean_mask([])


def test_a_u_net_whose_loss_is_no_number_fails_and_leaves_nothing_that_a_report_could_not_hold(monkeypatch):
    model, factors = torch.nn.Linear(1, 1), [1.0, float("nan")]
    monkeypatch.setattr(
        unet,
        "training_step",
        lambda *_: SimpleNamespace(loss=model(torch.ones(1, 1)).abs().sum() * factors.pop(0)),
    )
    descent = unet._Descent(model, None, None, steps=2)
    assert descent.step(None) >= 0
    with pytest.raises(RunError, match=r"loss of the U-Net is no longer a number in step 2"):
        descent.step(None)


@pytest.mark.parametrize(("changes", "steps"), [({}, 12), ({"max_steps": 5}, 5), ({"max_steps": 50}, 12)])
def test_the_budget_is_that_of_a_training(changes, steps):
    settings = TrainSettings(data=Path("d"), output=Path("o"), epochs=4, batch_size=3, **changes)
    assert budget(settings, 7) == steps
