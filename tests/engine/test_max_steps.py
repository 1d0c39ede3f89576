"""`--max-steps`: a training that ends after so many optimizer steps."""

import json
import math

import pytest
import torch
from engine_support import Killed, assert_same_run, events_of, interrupted, kill, metrics_of, tiny_settings
from safetensors.torch import load_file

from samfit.data.drawn import draw_lesions
from samfit.engine import stepping
from samfit.engine.training import resume, train

EPOCHS, STEPS = 2, 3
"""Epochs that are asked for, and optimizer steps of each."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=1, size=(40, 30))
    return folder


@pytest.fixture
def settings(data, tmp_path):
    def make(**changes: object):
        quick = {"method": "decoder", "epochs": EPOCHS, "checkpoint_every": 1, "accumulate": 1}
        return tiny_settings(data, tmp_path / "run", **(quick | changes))

    return make


@pytest.mark.parametrize(("most", "epochs"), [(1, 1), (3, 1), (5, 2), (6, 2), (100, 2)])
def test_a_training_ends_after_so_many_steps_and_validates(settings, most, epochs):
    cut = settings(max_steps=most)
    done = events_of(cut)
    taken = min(most, EPOCHS * STEPS)
    assert done.count("step") == taken
    assert done.count("score") == 3 * epochs  # each validation image after each epoch
    summary = json.loads((cut.output / "summary.json").read_text())
    assert (summary["steps"], summary["epochs"]) == (taken, epochs)
    rows = metrics_of(cut.output)
    assert len(rows) == epochs
    assert load_file(cut.output / "adapter.safetensors")


def test_the_loss_of_an_epoch_that_was_cut_is_the_mean_of_its_steps(settings, monkeypatch):
    losses = []
    original = stepping.training_step

    def training_step(*arguments):
        result = original(*arguments)
        losses.append(float(result.loss.detach()))
        return result

    monkeypatch.setattr(stepping, "training_step", training_step)
    rows = metrics_of(train(settings(max_steps=5)))
    assert len(losses) == 5
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 2]
    assert [float(row["loss"]) for row in rows] == pytest.approx(means, rel=1e-5)


def test_the_learning_rate_falls_over_the_steps_that_are_taken(settings, monkeypatch):
    used = []
    original = torch.optim.AdamW.step

    def step(self, *arguments, **named):
        used.append(self.param_groups[0]["lr"])
        return original(self, *arguments, **named)

    step.hooked = True  # as torch marks a step that it has wrapped
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(settings(max_steps=4, learning_rate=1e-3))
    assert used == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(4)])


@pytest.mark.parametrize("steps_before", [4, 5])
def test_a_cut_training_that_was_killed_goes_on_to_the_same_end(settings, tmp_path, steps_before):
    whole = settings(max_steps=5, output=tmp_path / "whole")
    moments = [number for number, name in enumerate(events_of(whole)) if name == "save_checkpoint"]
    after = moments[steps_before + 1] + 1  # the first checkpoint is before step 1, one is after epoch 1
    stopped = settings(max_steps=5)
    with interrupted(after, kill), pytest.raises(Killed):
        train(stopped)
    assert not (stopped.output / "summary.json").exists()
    resume(stopped.output)
    assert_same_run(stopped.output, whole.output)
    assert json.loads((stopped.output / "summary.json").read_text())["steps"] == 5
