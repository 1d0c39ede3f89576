"""A run that was stopped at any moment and resumed ends as one that was never stopped, to the last bit."""

import os
import pickle
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import refuse, samfit, succeed, unchanged
from engine_support import (
    FIRST_MOMENT,
    Killed,
    assert_same_run,
    events_of,
    interrupted,
    kill,
    run_samfit,
    run_with_signal,
    tiny_settings,
)
from PIL import Image

from samfit.data.drawn import draw_lesions
from samfit.engine.training import resume, train
from samfit.settings import TrainSettings

METHODS = ("cad", "decoder")
TEN = range(10)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=2, size=(40, 30))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """Return a function that gives a run of a method that was never stopped, and what it did in order."""
    runs: dict[str, tuple[TrainSettings, list[str]]] = {}

    def run_of(method: str) -> tuple[TrainSettings, list[str]]:
        if method not in runs:
            settings = tiny_settings(data, tmp_path_factory.mktemp(method) / "whole", method=method)
            runs[method] = settings, events_of(settings)
        return runs[method]

    return run_of


def moment_of(number: int, events: list[str]) -> int:
    """Return the first, second … of ten random moments of a training, each in a tenth of it."""
    tenth = (len(events) - FIRST_MOMENT) / 10
    return int(FIRST_MOMENT + (number + random.Random(number).random()) * tenth)


def stopped(whole, tmp_path: Path, method: str, moment: int) -> Path:
    """Return a run that was killed at a moment."""
    settings, _ = whole(method)
    run = tmp_path / "run"
    with interrupted(moment, kill), pytest.raises(Killed):
        train(settings.model_copy(update={"output": run}))
    return run


def test_the_training_that_is_stopped_does_everything(whole):
    _, events = whole("cad")
    assert events[:2] == ["save_checkpoint", "write_samples"]
    epoch = ["training_step", "training_step", "step"]
    assert events[2:7] == [*epoch[:2], "step", *epoch[:2]]
    assert set(events) == {
        "training_step",
        "step",
        "score",
        "save_adapter",
        "write_metrics",
        "write_samples",
        "save_checkpoint",
    }
    # Three epochs of parts 2 + 1, 2 + 1 and 1 images, checkpoints after every second step and every epoch.
    assert events.count("training_step") == 3 * 5
    assert events.count("step") == 3 * 3
    assert events.count("score") == 3 * 3
    assert events.count("save_checkpoint") == 1 + 4 + 3


@pytest.mark.parametrize(
    "number", [pytest.param(one, marks=[pytest.mark.slow] if one > 2 else []) for one in TEN]
)
def test_a_run_killed_at_a_random_moment_ends_as_one_that_was_not(whole, tmp_path, number):
    method = METHODS[number % 2]
    settings, events = whole(method)
    run = stopped(whole, tmp_path, method, moment_of(number, events))
    torch.manual_seed(number)  # what a new process finds is none of the run's business
    assert resume(run) == run
    assert_same_run(run, settings.output)


def kill_for_real(whole, tmp_path: Path, method: str, moment: int) -> Path:
    """Return a run whose process was killed by kill -9 at a moment."""
    settings, _ = whole(method)
    run = tmp_path / "run"
    ended = run_with_signal(settings.model_copy(update={"output": run}), moment, signal.SIGKILL)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return run


# Of the ten, one in the middle of a step of the second epoch and one in the middle of a validation.
@pytest.mark.parametrize(
    ("method", "after"),
    [("cad", ("training_step", 7)), pytest.param("decoder", ("score", 4), marks=pytest.mark.slow)],
)
def test_a_run_ended_by_kill_9_goes_on(whole, tmp_path, method, after):
    settings, events = whole(method)
    moment = [number for number, event in enumerate(events) if event == after[0]][after[1]] + 1
    run = kill_for_real(whole, tmp_path, method, moment)
    succeed("train", "--resume", run)
    assert_same_run(run, settings.output)


@pytest.mark.slow
@pytest.mark.parametrize("number", TEN)
def test_a_run_ended_by_kill_9_at_a_random_moment_goes_on_in_a_new_process(whole, tmp_path, number):
    method = METHODS[number % 2]
    settings, events = whole(method)
    run = kill_for_real(whole, tmp_path, method, moment_of(number, events))
    ended = run_samfit("train", "--resume", str(run))
    assert ended.returncode == 0, ended.stderr
    assert_same_run(run, settings.output)


@pytest.mark.parametrize(
    ("number", "status", "event", "workers"),
    [
        pytest.param(signal.SIGTERM, 143, "training_step", 1, id="SIGTERM to all"),
        pytest.param(signal.SIGINT, 130, "score", 0, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(whole, tmp_path, number, status, event, workers):
    settings, events = whole("cad")
    run = tmp_path / "run"
    moment = 20 + events[20:].index(event)
    changed = settings.model_copy(update={"output": run, "workers": workers})
    ended = run_with_signal(changed, moment, number, to_all=workers > 0)
    assert ended.returncode == status, ended.stderr
    assert ended.stdout == ""
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("samfit: error: stopped in epoch ")
    assert last.endswith(f"go on with 'samfit train --resume {run}'")
    assert "Traceback" not in ended.stderr
    succeed("train", "--resume", run)
    assert_same_run(run, settings.output)


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ("training_step", signal.SIGINT),
        ("step", signal.SIGTERM),
        ("score", signal.SIGINT),
        ("save_checkpoint", signal.SIGTERM),
        ("write_metrics", signal.SIGINT),
    ],
)
def test_nothing_is_lost_by_a_signal_anywhere(whole, tmp_path, number, event):
    settings, events = whole("decoder")
    run = tmp_path / "run"
    moment = 3 + events[3:].index(event)
    handlers = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    with interrupted(moment, lambda: signal.raise_signal(number)) as done:
        status = samfit(*train_command(settings, run)).status
    assert status == 128 + number
    assert done.index(event, 3) == moment
    # It goes on to the next place from which it can go on, and no further.
    assert done[moment:].count("step") <= 1
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert resume(run) == run
    assert_same_run(run, settings.output)


def train_command(settings: TrainSettings, run: Path) -> list[object]:
    return ["train", "--config", settings.output / "config.yaml", "--output", run]


def test_a_second_ctrl_c_stops_at_once(whole, tmp_path):
    settings, _ = whole("decoder")
    run = tmp_path / "run"

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with interrupted(6, twice) as done:
        answer = samfit(*train_command(settings, run))
    assert len(done) == 6
    assert answer.status == 130
    assert answer.err.endswith("samfit: error: interrupted\n")
    assert resume(run) == run
    assert_same_run(run, settings.output)


def test_a_signal_in_the_last_validation_image_of_the_last_epoch_is_not_lost(whole, tmp_path):
    settings, events = whole("decoder")
    run = tmp_path / "run"
    moment = max(number for number, event in enumerate(events) if event == "score")
    with interrupted(moment, lambda: signal.raise_signal(signal.SIGTERM)):
        assert samfit(*train_command(settings, run)).status == 143
    assert not (run / "summary.json").exists()
    assert resume(run) == run
    assert_same_run(run, settings.output)


def test_a_run_stopped_twice_ends_as_one_that_was_not(whole, tmp_path):
    settings, events = whole("cad")
    run = stopped(whole, tmp_path, "cad", len(events) // 3)
    with interrupted(len(events) // 3, kill), pytest.raises(Killed):
        resume(run)
    assert resume(run) == run
    assert_same_run(run, settings.output)


def test_a_finished_run_says_that_nothing_is_left_to_train(whole, tmp_path):
    settings, _ = whole("decoder")
    run = tmp_path / "run"
    shutil.copytree(settings.output, run)
    (run / "last.ckpt").unlink()  # of no use any more
    with unchanged(run):
        output = succeed("train", "--resume", run)
    assert f"{run} is finished; there is nothing left to train" in output.err
    assert "best epoch" in output.out


@pytest.fixture(scope="module")
def stopped_once(whole, tmp_path_factory) -> Path:
    return stopped(whole, tmp_path_factory.mktemp("stopped"), "decoder", 20)


@pytest.fixture
def half(stopped_once, tmp_path) -> Path:
    """Return a copy of a run that was stopped in the middle."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def refusal(run: Path) -> str:
    """Resume a run that must be refused, changing nothing, and return the message."""
    with unchanged(run):
        return refuse("train", "--resume", run).splitlines()[-1].removeprefix("samfit: error: ")


def change_setting(run: Path, name: str, value: object) -> None:
    lines = (run / "config.yaml").read_text().splitlines()
    changed = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in lines]
    assert changed != lines
    (run / "config.yaml").write_text("\n".join(changed) + "\n")


def test_a_run_whose_data_changed_does_not_go_on(half, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    change_setting(half, "data", other)
    mask = next(other.glob("*Training_GroundTruth/*.png"))
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(mask)
    assert refusal(half) == (f"{half} cannot go on: the files of {other} have changed since it was started")


def test_a_run_on_other_base_weights_does_not_go_on(half):
    before = torch.load(half / "last.ckpt", weights_only=True)["base_sha256"]
    change_setting(half, "seed", 1)  # random weights are drawn from it
    message = refusal(half)
    assert message.startswith(f"{half} cannot go on: it was started on base weights with hash {before}, ")
    assert "--weights random now has " in message


@pytest.mark.parametrize("name", ["last.ckpt", "config.yaml"])
def test_a_folder_without_a_run_is_refused(half, name):
    (half / name).unlink()
    message = refusal(half)
    assert str(half) in message
    assert {
        "last.ckpt": "there is no checkpoint to go on from; start again with --overwrite",
        "config.yaml": "it has no config.yaml; give the --output of a training",
    }[name] in message


class _Code:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _code_in_zip(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"position": _Code(path.with_name("flag"))}, path)


def _foreign(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "cannot be read: it is cut off, or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "cannot be read: it is cut off, or not a checkpoint"),
        (lambda path: path.write_text("epoch: 3\n"), "cannot be read: it is cut off, or not a checkpoint"),
        (lambda path: path.write_text("no checkpoint\n"), "was refused: it is not a checkpoint of samfit"),
        (
            lambda path: path.write_bytes(pickle.dumps(_Code(path.with_name("flag")))),
            "or a pickle with code in it, which was not run",
        ),
        (_code_in_zip, "or a pickle with code in it, which was not run"),
        (_foreign, "is not a checkpoint of samfit: it does not say where its run stood"),
        (lambda path: torch.save([1, 2], path), "is not a checkpoint of samfit"),
    ],
    ids=["cut", "empty", "text", "another text", "pickle", "code-in-zip", "foreign", "list"],
)
def test_a_damaged_checkpoint_is_refused_and_never_run(half, damage, said):
    path = half / "last.ckpt"
    damage(path)
    message = refusal(half)
    assert message.startswith(f"{path} ")
    assert said in message
    assert not (half / "flag").exists()


def test_the_checkpoint_of_another_method_is_refused(half, whole):
    settings, _ = whole("cad")
    other = torch.load(settings.output / "last.ckpt", weights_only=True)
    torch.save(other, half / "last.ckpt")
    assert "tensors do not fit the model, the first is adapter." in refusal(half)
