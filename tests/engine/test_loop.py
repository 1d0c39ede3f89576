"""What a training does from its first step to its summary."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import samfit
from engine_support import assert_same_run, metrics_of, tiny_settings
from PIL import Image
from safetensors.torch import load_file

from samfit.backbones import load_backbone
from samfit.data import batches
from samfit.data.drawn import draw_lesions
from samfit.engine import loop, stepping, training
from samfit.engine.training import train
from samfit.errors import DataError, RunError
from samfit.methods import METHODS, attach
from samfit.metrics.scores import ImageScore
from samfit.runs import read_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=2, size=(40, 30))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """Return a finished run of `cad` with everything at what `tiny_settings` says."""
    return train(tiny_settings(data, tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture
def settings(data, tmp_path):
    """Return a function that gives settings of a short training of `decoder`, with changes."""

    def make(**changes: object):
        quick = {"method": "decoder", "epochs": 2, "checkpoint_every": None, "samples_every": 100}
        return tiny_settings(data, tmp_path / "run", **(quick | changes))

    return make


@pytest.fixture
def task(monkeypatch) -> dict[str, loop.Task]:
    """Catch what a training works on."""
    caught: dict[str, loop.Task] = {}
    monkeypatch.setattr(
        training, "Loop", lambda task, *others: caught.setdefault("task", task) and loop.Loop(task, *others)
    )
    return caught


COSINE = [1.0, 0.933013, 0.75, 0.5, 0.25, 0.066987]


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, COSINE),
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup": 2}, [0.5, 1, 1, 1, 1, 1]),
        ({"warmup": 2}, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
        ({"warmup": 8}, [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8]),
    ],
    ids=["cosine", "constant", "warmup, constant", "warmup, cosine", "longer warmup than training"],
)
def test_the_learning_rate_of_each_step_is_that_of_the_schedule(settings, monkeypatch, changes, shares):
    used = []
    original = torch.optim.AdamW.step

    def step(self, *arguments, **named):
        used.append(self.param_groups[0]["lr"])
        return original(self, *arguments, **named)

    step.hooked = True  # as torch marks a step that it has wrapped
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run = train(settings(learning_rate=1e-3, **changes))
    assert used == pytest.approx([1e-3 * share for share in shares], rel=1e-5)
    rates = [float(row["learning_rate"]) for row in metrics_of(run)]
    assert rates == [used[2], used[5]]


@pytest.mark.parametrize(("name", "decoupled"), [("adamw", True), ("adam", False)])
def test_the_optimizer_is_the_one_asked_for(settings, name, decoupled):
    run = train(settings(optimizer=name, weight_decay=0.25, epochs=1))
    [group] = read_checkpoint(run / "last.ckpt")["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.25
    assert group["decoupled_weight_decay"] == decoupled


@pytest.fixture
def scripted(monkeypatch):
    """Let validation find a given Dice after each epoch; return what was trained at each validation."""
    states: list[dict[str, torch.Tensor]] = []

    def script(*dice: float) -> list[dict[str, torch.Tensor]]:
        def score_set(model, frame, samples, *_, **__):
            states.append({name: tensor.clone() for name, tensor in model.adapter_state().items()})
            value = (dice[len(states) - 1],)
            nothing = (False,)
            values = {"dice": value, "iou": value}
            return [ImageScore(sample.id, values, nothing, nothing) for sample in samples.samples]

        monkeypatch.setattr(loop, "score_set", score_set)
        return states

    return script


@pytest.mark.parametrize(
    ("patience", "dice", "epochs", "best"),
    [
        (2, [0.2, 0.5, 0.4, 0.3, 0.9, 0.9], 4, 2),
        (2, [0.2, 0.5, 0.4, 0.6, 0.5, 0.5], 6, 4),
        (1, [0.5, 0.5, 0.6, 0.7, 0.8, 0.9], 2, 1),
        (3, [0.0, 0.0, 0.0, 0.0, 0.9, 0.9], 4, 1),
        (None, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 6, 1),
        (None, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6, 6),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_a_training(
    settings, scripted, patience, dice, epochs, best
):
    states = scripted(*dice)
    run = train(settings(epochs=6, patience=patience, batch_size=7, accumulate=1))
    assert [float(row["validation_dice"]) for row in metrics_of(run)] == pytest.approx(dice[:epochs])
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["best_epoch"], summary["epochs"]) == (best, epochs)
    assert summary["validation"] == pytest.approx({"dice": dice[best - 1], "iou": dice[best - 1]})
    adapter = load_file(run / "adapter.safetensors")
    assert adapter.keys() == states[0].keys()
    same = [all(torch.equal(adapter[name], state[name]) for name in adapter) for state in states]
    assert same == [number == best for number in range(1, epochs + 1)]


def test_a_loss_that_is_no_number_stops_the_training_and_spoils_nothing(settings, monkeypatch):
    steps = []
    original = stepping.training_step

    def training_step(*arguments):
        steps.append(1)
        result = original(*arguments)
        if len(steps) < 7:
            return result
        parts = {name: part * math.nan for name, part in result.parts.items()}
        return type(result)(result.loss * math.nan, parts, result.logits)

    monkeypatch.setattr(stepping, "training_step", training_step)
    changed = settings(learning_rate=0.5)
    with pytest.raises(RunError, match=r"no longer a number in epoch 2: .*--learning-rate \(now 0.5\)"):
        train(changed)
    content = read_checkpoint(changed.output / "last.ckpt")
    assert content["position"]["epoch"] == 1
    for state in (content["state"], load_file(changed.output / "adapter.safetensors")):
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert not (changed.output / "summary.json").exists()


def test_sheets_show_the_same_validation_images_as_they_are_learnt(run):
    sheets = sorted((run / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["epoch_0000.png", "epoch_0002.png", "epoch_0003.png"]
    first, *others = [np.array(Image.open(sheet)) for sheet in sheets]
    for other in others:
        assert other.shape == first.shape
        middle = first.shape[1] // 2
        np.testing.assert_array_equal(other[:, :middle], first[:, :middle])  # the images
        assert (other[:, middle:] != first[:, middle:]).any()  # the overlays


def test_metrics_have_one_row_an_epoch(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch",
        "protocol",
        "loss",
        "loss_bce",
        "loss_iou",
        "validation_dice",
        "validation_iou",
        "learning_rate",
        "seconds",
        "peak_bytes",
    ]
    assert [(row["epoch"], row["protocol"]) for row in rows] == [(epoch, "default") for epoch in "123"]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["loss_bce"]) + float(row["loss_iou"]))
        assert 0 <= float(row["validation_iou"]) <= float(row["validation_dice"]) <= 1
        assert float(row["seconds"]) > 0
        assert int(row["peak_bytes"]) > 1e6
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_the_summary_says_what_the_run_was(run):
    summary = json.loads((run / "summary.json").read_text())
    rows = metrics_of(run)
    best = max(rows, key=lambda row: float(row["validation_dice"]))
    adapter = load_file(run / "adapter.safetensors")
    numbers = [t.numel() for name, t in adapter.items() if "running_" not in name and "tracked" not in name]
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["validation"] == {
        "dice": float(best["validation_dice"]),
        "iou": float(best["validation_iou"]),
    }
    assert summary["epochs"] == 3
    assert summary["prompt"] == "click"
    assert summary["trained_parameters"] == sum(numbers)
    assert summary["parameters"] > 3 * summary["trained_parameters"]
    assert summary["images"] == {"train": 7, "validation": 3}
    assert list(summary["empty_masks"].values()) == [0]
    assert "foreground" in summary["mask_reading"]
    assert summary["peak_bytes"] > 1e6
    assert summary["peak_bytes_are"] == "resident in the process"
    assert 0 < summary["seconds"] < summary["wall_seconds"]
    assert len(summary["data_fingerprint"]) == len(summary["base_sha256"]) == 64
    assert summary["versions"]["torch"] == torch.__version__


def test_the_config_of_a_run_repeats_it(run, tmp_path):
    answer = samfit("train", "--config", run / "config.yaml", "--output", tmp_path / "again")
    assert answer.status == 0, answer.err
    assert_same_run(tmp_path / "again", run)


def test_workers_change_nothing(run, data, tmp_path):
    assert_same_run(train(tiny_settings(data, tmp_path / "again", workers=1)), run)


@pytest.mark.parametrize("loss", ["bce-iou", "dice-ce"])
def test_parts_of_a_batch_add_up_to_the_whole(settings, tmp_path, loss):
    # `cad` is another matter: its batch statistics are those of a part.
    whole = train(settings(accumulate=1, loss=loss))
    parts = train(settings(accumulate=2, loss=loss, output=tmp_path / "parts"))
    for one, other in zip(metrics_of(whole), metrics_of(parts), strict=True):
        for name, value in one.items():
            assert float(other[name]) == pytest.approx(float(value), rel=1e-5), name


def test_test_images_neither_train_nor_choose(settings, task, monkeypatch):
    read = []
    original = batches.read_image

    def read_image(path, *arguments):
        read.append(path)
        return original(path, *arguments)

    monkeypatch.setattr(batches, "read_image", read_image)
    train(settings(epochs=1))
    training_images = {sample.image for sample in task["task"].training.samples}
    validation_images = {sample.image for sample in task["task"].validation.samples}
    assert (len(training_images), len(validation_images)) == (7, 3)
    assert not training_images & validation_images
    assert set(read) == training_images | validation_images
    assert {path.parent.name for path in read} == {"ISBI2016_ISIC_Part1_Training_Data"}


UNUSED = (
    *(f"backbone.mask_decoder.output_hypernetworks_mlps.{mask}." for mask in (1, 2, 3)),
    *(f"adapter.conv_block{block}.conv.bias" for block in (1, 2, 3)),
)
"""Trained, but no gradient reaches them.

One class is answered by the decoder's first mask alone, and a batch's mean takes the bias before it away.
"""


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_moves_and_nothing_else(settings, task, method):
    train(settings(method=method, weight_decay=0.0))
    model = task["task"].model
    fresh = attach(load_backbone("sam-tiny", weights="random", image_size=64), method, classes=model.classes)
    before, after = fresh.state_dict(), model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    expected = {name for name in model.adapter_state() if not name.startswith(UNUSED)}
    assert moved == expected
    assert {name for name in before if name.startswith("adapter.") and not name.startswith(UNUSED)} <= moved
    trained = model.trained()
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in trained)


def test_bf16_is_close_to_32(settings, tmp_path):
    exact = train(settings(method="cad"))
    rounded = train(settings(method="cad", precision="bf16", output=tmp_path / "bf16"))
    for one, other in zip(metrics_of(exact), metrics_of(rounded), strict=True):
        assert float(other["loss"]) == pytest.approx(float(one["loss"]), rel=0.01)
        assert other["loss"] != one["loss"]
    state = load_file(rounded / "adapter.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert {tensor.dtype for tensor in state.values()} <= {torch.float32, torch.int64}


def test_bf16_leaves_coordinates_as_they_are(settings, monkeypatch):
    seen = []

    class Watched(loop.Loop):
        def __init__(self, task, *others):
            task.model.register_forward_pre_hook(lambda _, given: seen.append(given))
            super().__init__(task, *others)

    monkeypatch.setattr(training, "Loop", Watched)
    train(settings(precision="bf16", epochs=1))
    assert {tensor.dtype for given in seen for tensor in (given[0], given[2].points)} == {torch.float32}


def test_overwriting_removes_the_old_run_and_nothing_else(settings):
    run = settings().output
    train(settings())
    for name in ("samples/epoch_0099.png", "evaluation/summary.json", "tensorboard/events", "notes.txt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("old")
    with pytest.raises(RunError, match="already holds a run"):
        train(settings())
    train(settings(epochs=1), overwrite=True)
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "adapter.safetensors", "last.ckpt", "metrics.csv", "summary.json", "samples"),
        "MODEL_CARD.md",
        *("log.txt", "notes.txt"),
    }
    assert {path.name for path in (run / "samples").iterdir()} == {"epoch_0000.png", "epoch_0001.png"}
    assert len(metrics_of(run)) == 1


def test_overwriting_with_data_that_cannot_be_used_keeps_the_old_run(settings, tmp_path):
    run = train(settings())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(DataError):
        train(settings().model_copy(update={"data": tmp_path / "missing"}), overwrite=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
