"""Running samfit's commands as a user does, in this process, and looking at what they leave behind."""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from samfit.cli import main
from samfit.data.drawn import draw_lesions

TRAINING, TEST = 12, 7
"""Images of each split of the drawn data set."""
SIZE = (96, 72)
"""Width and height of its images."""
TINY = (
    *("--backbone", "sam-tiny", "--weights", "random", "--accelerator", "cpu", "--image-size", "64"),
    *("--checkpointing", "off"),  # so that nothing is planned
)
"""The smallest model that a run can have here."""


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit status and what it wrote to the two streams."""

    status: int
    out: str
    err: str


@contextlib.contextmanager
def logger_as_it_was() -> Iterator[None]:
    """Take back what the command line sets for messages."""
    logger = logging.getLogger("samfit")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def samfit(*arguments: object) -> Answer:
    """Run one command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with logger_as_it_was(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Answer(status, out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> Answer:
    """Run one command line that must succeed."""
    answer = samfit(*arguments)
    assert answer.status == 0, answer.err
    assert "Traceback" not in answer.err
    return answer


def refuse(*arguments: object, status: int = 2) -> str:
    """Run one command line that must fail with a message; return the message."""
    answer = samfit("--quiet", *arguments)
    assert answer.status == status, answer
    assert "samfit: error: " in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    return answer.err


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` by its relative name, temporary and hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Prove that the block leaves `folder` as it was, or absent if it was not there."""
    was_there, before = folder.exists(), content(folder)
    yield
    assert folder.exists() == was_there
    assert content(folder) == before


_made: dict[str, Path] = {}
"""What the two functions below have made in this process."""


def drawn_data(factory: pytest.TempPathFactory) -> Path:
    """Return a data set of drawn lesions in the layout isic2016; tests must not change it."""
    if "data" not in _made:
        folder = factory.mktemp("drawn")
        draw_lesions(folder, training=TRAINING, test=TEST, size=SIZE)
        _made["data"] = folder
    return _made["data"]


def finished_run(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on `drawn_data` that has learnt something; tests must not change it."""
    if "run" not in _made:
        run = factory.mktemp("finished") / "run"
        train(drawn_data(factory), run, "--epochs", "15", "--learning-rate", "3e-3")
        _made["run"] = run
    return _made["run"]


def train(data: Path, run: Path, *flags: str) -> Answer:
    """Train the smallest model on a data set in the layout isic2016."""
    fixed = ("--dataset", "isic2016", "--validation-fraction", "0.3", "--samples-every", "100")
    return succeed("train", "--data", data, "--output", run, *TINY, *fixed, *flags)
