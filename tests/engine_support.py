"""A small training that passes through everything, ways to stop it at any moment, and how to compare runs.

Run as a module it is `samfit train --config FILE`, whose first process gets a signal at a moment.
"""

import csv
import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from support import ROOT

from samfit.cli import main
from samfit.config import write_config
from samfit.defaults import in_words
from samfit.engine import loop, scoring, stepping
from samfit.engine.training import train
from samfit.progress import is_first_process
from samfit.settings import TrainSettings

MEASURED = {"seconds", "peak_bytes"}
"""Columns of metrics.csv that no two runs have in common."""

_EVENTS: tuple[tuple[Any, str], ...] = (
    (stepping, "training_step"),  # each part of each batch
    (torch.optim.AdamW, "step"),
    (scoring, "score"),  # each validation image
    (loop, "save_adapter"),
    (loop, "write_metrics"),
    (loop, "write_samples"),
    (loop, "save_checkpoint"),
)
"""What a training does, one after the other: a moment is the time before one of these."""

FIRST_MOMENT = 1
"""The first checkpoint is written before it; earlier there is nothing to go on from."""


class Killed(BaseException):
    """Ends a training at once, as kill -9 would: nothing catches it, so that nothing is saved."""


def tiny_settings(data: Path, run: Path, **changes: Any) -> TrainSettings:
    """Return settings of a training of a second: seven training images in steps of 3, 3 and 1.

    `data`: seven training and three validation images drawn by `draw_lesions`. Each step passes in two parts,
    prompts and augmentation are random, and checkpoints are written in the middle of epochs.
    """
    values: dict[str, Any] = {
        "data": data,
        "dataset": "isic2016",
        "output": run,
        "backbone": "sam-tiny",
        "weights": "random",
        "image_size": 64,
        "validation_fraction": 0.3,
        "prompt": "click",
        "augment": "affine",
        "batch_size": 3,
        "accumulate": 2,
        "learning_rate": 1e-4,
        "epochs": 3,
        "samples_every": 2,
        "checkpoint_every": 2,
        "accelerator": "cpu",
        "checkpointing": "off",  # so that nothing is planned
    }
    return TrainSettings(**(values | changes))


@contextmanager
def interrupted(moment: int, action: Callable[[], None]) -> Iterator[list[str]]:
    """Do `action` at a moment of a training; yield the names of what the training has done so far."""
    done: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watch(*arguments: Any, **named: Any) -> Any:
            if len(done) == moment:
                action()
            done.append(name)
            return function(*arguments, **named)

        return watch

    before = [(owner, name, getattr(owner, name)) for owner, name in _EVENTS]
    for owner, name, function in before:
        setattr(owner, name, watched(name, function))
    try:
        yield done
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def kill() -> None:
    """Raise `Killed`."""
    raise Killed


def events_of(settings: TrainSettings) -> list[str]:
    """Train to the end and return what was done, in order."""
    with interrupted(-1, kill) as done:
        train(settings)
    return done


def run_samfit(*arguments: str, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run `python -m samfit` in a process of its own."""
    return _run([sys.executable, "-m", "samfit", *arguments], timeout)


def run_with_signal(
    settings: TrainSettings, moment: int, number: int, *, to_all: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Train with the command line in a process of its own that sends itself a signal at a moment.

    `to_all`: and to all processes that it has started, as a terminal, `timeout` and Slurm do.
    """
    config = settings.output.with_suffix(".yaml")
    write_config(config, in_words(settings))
    words = (config, moment, int(number), "all" if to_all else "one")
    return _run([sys.executable, "-m", "engine_support", *map(str, words)], 120)


def _train_with_signal(config: str, moment: str, number: str, to: str) -> int:
    """Train and send the first process, or its whole group, a signal at a moment; return the exit status."""
    signalled = int(moment) if is_first_process() else -1

    def send() -> None:
        if to == "all":
            # By another process: readers take a SIGTERM of the one that they read for as the end.
            subprocess.run(["sh", "-c", f"kill -{number} 0"])
            for reader in multiprocessing.active_children():
                reader.join(0.5)  # time for the signal to end it
        else:
            os.kill(os.getpid(), int(number))

    with interrupted(signalled, send):
        return main(["train", "--config", config])


def _run(command: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    """Run a command and end all its processes, those that it started too, if it takes too long."""
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{command} did not end in {timeout} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def metrics_of(run: Path) -> list[dict[str, str]]:
    """Return the figures in the rows of metrics.csv as text, without what is measured."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in {*MEASURED, "protocol"}}
            for row in csv.DictReader(file)
        ]


def assert_same_run(run: Path, other: Path) -> None:
    """Check that two runs ended alike, to the last bit, but for what is measured."""
    assert metrics_of(run) == metrics_of(other)
    assert (run / "adapter.safetensors").read_bytes() == (other / "adapter.safetensors").read_bytes()
    _assert_same(_checkpoint(run), _checkpoint(other), "last.ckpt")
    measured = {*MEASURED, "wall_seconds"}
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (run, other))
    assert {k: v for k, v in one.items() if k not in measured} == {
        k: v for k, v in two.items() if k not in measured
    }
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in other.iterdir())
    for sheet in sorted((other / "samples").iterdir()):
        assert (run / "samples" / sheet.name).read_bytes() == sheet.read_bytes(), sheet.name


def _checkpoint(run: Path) -> dict[str, Any]:
    content = torch.load(run / "last.ckpt", weights_only=True)
    for place in (content["position"], *content["position"]["rows"]):
        for name in MEASURED & place.keys():
            del place[name]
    return content


def _assert_same(one: Any, other: Any, place: str) -> None:
    """Compare nested mappings, lists, tensors and plain values bit by bit."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            _assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            _assert_same(first, second, f"{place}.{number}")
    else:
        assert one == other, place


if __name__ == "__main__":
    sys.exit(_train_with_signal(*sys.argv[1:]))
