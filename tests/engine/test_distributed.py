"""Two processes with one global batch do what one process does."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import scoring_support
import torch
from batch_norm_support import CASES, CHANNELS, WORLD, made, measured, normalise, prepared
from engine_support import assert_same_run, metrics_of, run_samfit, run_with_signal, tiny_settings
from lightning_fabric import Fabric
from scoring_support import score_share, scores_of
from torch import nn
from torch.multiprocessing.spawn import spawn

from samfit import processes
from samfit.config import write_config
from samfit.data.drawn import draw_lesions
from samfit.defaults import in_words
from samfit.engine import training
from samfit.engine.embeddings import Choice
from samfit.engine.loop import Loop
from samfit.engine.training import train
from samfit.errors import RunError
from samfit.methods import attach
from samfit.runs import RunFolder, read_checkpoint
from samfit.settings import TrainSettings
from samfit.testing import small_backbone


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=2, size=(40, 30))
    return folder


def two_processes(settings: TrainSettings) -> TrainSettings:
    """Return the same training on two CPU processes, in a folder beside."""
    run = settings.output.with_name("two")
    return settings.model_copy(update={"devices": 2, "strategy": "ddp", "output": run})


def trained_by_two(settings: TrainSettings) -> tuple[Path, str, str]:
    """Train on two processes through the command line; return the run, stdout and stderr."""
    settings = two_processes(settings)
    config = settings.output.with_suffix(".yaml")
    write_config(config, in_words(settings))
    ended = run_samfit("train", "--config", str(config))
    assert ended.returncode == 0, ended.stderr
    return settings.output, ended.stdout, ended.stderr


def assert_same_numbers(one: Path, two: Path) -> None:
    """Compare every column of metrics.csv within 1e-5."""
    rows, others = metrics_of(one), metrics_of(two)
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        numbers = {name: pytest.approx(float(value), rel=1e-5, abs=1e-7) for name, value in row.items()}
        assert {name: float(value) for name, value in other.items()} == numbers


def assert_same_gradients(one: Path, two: Path) -> None:
    """Compare what Adam holds of the gradients: its steps do not show a factor in them."""
    moments = []
    for run in (one, two):
        states = read_checkpoint(run / "last.ckpt")["optimizer"]["state"].values()
        moments.append(torch.cat([state["exp_avg"].flatten() for state in states]))
    torch.testing.assert_close(moments[1].norm(), moments[0].norm(), rtol=1e-3, atol=0)


def settings_of(data: Path, tmp_path: Path, **changes: object) -> TrainSettings:
    """Return a training whose figures move: nine images in steps of 4, 4 and 1, one validation image."""
    values = {"validation_fraction": 0.1, "batch_size": 4, "epochs": 4, "prompt": "box"}
    return tiny_settings(data, tmp_path / "one", **(values | changes))


def test_two_processes_give_the_numbers_of_one_and_one_of_them_speaks(data, tmp_path):
    """The two fill a cache together and tell each other what is in it; the one encodes in every step."""
    settings = settings_of(data, tmp_path, augment="flips", cache="off")
    one = train(settings)
    two, out, err = trained_by_two(settings.model_copy(update={"cache": "memory"}))
    assert_same_numbers(one, two)
    assert_same_gradients(one, two)
    assert 0 < float(metrics_of(one)[-1]["validation_dice"]) < 1
    assert out.startswith("best epoch ")
    assert out.count("best epoch") == 1
    lines = [line for line in err.splitlines() if "encoding images" not in line]  # said if that takes long
    assert [line.partition(":")[0] for line in lines] == ["samfit"] * 6
    assert "random base weights" in lines[0]
    assert "are kept in memory" in lines[1]
    assert [line.split(":")[1] for line in lines[2:]] == [f" epoch {epoch} of 4" for epoch in (1, 2, 3, 4)]
    assert (two / "log.txt").read_text().count("epoch 1 of 4") == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cad", "decoder"])
@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 1},
        {"accumulate": 1, "batch_size": 2, "validation_fraction": 0.5},
        {"batch_size": 5, "validation_fraction": 0.4, "augment": "none"},
        {"batch_size": 9, "loss": "dice-ce", "optimizer": "adam"},
        {"prompt": "click", "workers": 1},
    ],
    ids=["no parts", "five steps", "uneven parts", "one step", "workers"],
)
def test_two_processes_give_the_numbers_of_one(data, tmp_path, method, changes):
    settings = settings_of(data, tmp_path, method=method, **changes)
    assert_same_numbers(train(settings), trained_by_two(settings)[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_first_of_two_processes_stops_both(data, tmp_path, number):
    settings = settings_of(data, tmp_path)
    whole, _, _ = trained_by_two(settings)
    stopped = two_processes(settings).model_copy(update={"output": tmp_path / "stopped"})
    ended = run_with_signal(stopped, 22, number)
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.count("stopped in epoch") == 1
    assert ended.stderr.splitlines()[-1].endswith(f"go on with 'samfit train --resume {stopped.output}'")
    assert run_samfit("train", "--resume", str(stopped.output)).returncode == 0
    assert_same_run(stopped.output, whole)


def test_what_the_first_process_has_chosen_for_vram_holds_for_all(data, tmp_path, monkeypatch):
    """Here the one process is not the first, which has chosen to split batches further."""
    monkeypatch.setattr(training, "is_first_process", lambda: False)
    monkeypatch.setattr(training, "fit_to_vram", lambda *_, **__: pytest.fail("chose for itself"))

    def from_first(_: Fabric, sent: tuple[TrainSettings, Choice]) -> tuple[TrainSettings, Choice]:
        settings, cache = sent
        return settings.model_copy(update={"accumulate": 3}), cache

    monkeypatch.setattr(Fabric, "broadcast", from_first)
    run = train(settings_of(data, tmp_path, vram="8GB", max_steps=1, epochs=1))
    assert RunFolder(run).settings().accumulate == 3


def test_processes_that_do_not_start_from_the_same_weights_are_refused(monkeypatch):
    """Here each run of the check stands for a process."""
    said = []
    monkeypatch.setattr(processes, "all_alike", lambda value: said.append(value) or value == said[0])
    model = attach(small_backbone("sam-tiny", image_size=32), "cad")
    of_two = SimpleNamespace(
        fabric=SimpleNamespace(world_size=2), model=model, settings=SimpleNamespace(weights="medsam.pth")
    )
    for _ in range(2):
        Loop._require_equal_weights(of_two)
    model.backbone.weights_hash = "another file"
    with pytest.raises(RunError, match=r"same file as --weights \(now medsam.pth\)"):
        Loop._require_equal_weights(of_two)
    said.clear()
    Loop._require_equal_weights(of_two)
    with torch.no_grad():
        model.adapter.conv_up.bias[0] += 1e-6
    with pytest.raises(RunError):
        Loop._require_equal_weights(of_two)


@pytest.mark.slow
def test_two_processes_get_the_scores_of_one_by_every_protocol(data, tmp_path):
    spawn(score_share, (str(data), str(tmp_path)), nprocs=scoring_support.WORLD)
    alone = json.loads(json.dumps(scores_of(data)))
    assert list(alone) == ["msa-guide", "istd"]
    assert [len(several) for several in alone.values()] == [12, 12]
    assert len({tuple(score["values"]["ber"]) for score in alone["istd"]}) > 6
    for rank in range(scoring_support.WORLD):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


@pytest.fixture(scope="module")
def normalised(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """Return what each of two processes got for every case."""
    folder = tmp_path_factory.mktemp("normalised")
    spawn(normalise, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_batch_statistics_are_those_of_the_joined_batch(normalised, name):
    case = CASES[name]
    parts = [made(rank, count, case)[:2] for rank, count in enumerate(case.counts) if count]
    images, gradient = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    expected = measured(prepared(nn.BatchNorm2d(CHANNELS), case), images, gradient)
    tolerance = {"atol": 1e-6, "rtol": 0.0} if case.dtype == torch.float64 else {"atol": 0.02, "rtol": 0.02}
    own = [
        {key: value[name][key][:count] for key in ("out", "images", "eval")}
        for value, count in zip(normalised, case.counts, strict=True)
    ]
    for key in ("out", "images", "eval"):
        torch.testing.assert_close(torch.cat([part[key] for part in own]), expected[key], **tolerance)
    for key in ("weight", "bias"):  # processes add up their gradients
        total = sum(value[name][key] for value in normalised)
        torch.testing.assert_close(total, expected[key], **tolerance)
    for value in normalised:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(value[name][key], expected[key], **tolerance)
    for value, count in zip(normalised, case.counts, strict=True):
        if count == 0:
            assert not value[name]["images"].any()
