"""Does the one job that it reads from stdin: `python -m samfit.compare.work`."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from filelock import FileLock

from samfit.compare.jobs import Job
from samfit.compare.mean_mask import score_mean_mask
from samfit.compare.running import Ended
from samfit.compare.unet import train_unet
from samfit.config import write_config
from samfit.defaults import in_words
from samfit.engine.evaluation import evaluate
from samfit.engine.pictures import Pictures
from samfit.engine.training import from_anywhere, resume, train
from samfit.errors import SamfitError
from samfit.runs import RunFolder, require_free
from samfit.settings import TrainSettings

logger = logging.getLogger(__name__)

_GRACE = 20.0
"""Seconds that a process has to write its checkpoint when the one that started it is gone."""


def do(job: Job) -> None:
    """Do a job, or what is left of it, unless it is done. Raises what training and evaluation raise.

    A process that does the same job is waited for.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(job.folder.with_name(f".{job.folder.name}.lock")):
        if job.is_finished():
            return
        began = job.was_begun()
        if not began:
            folder = RunFolder(job.folder)
            if began is None:
                require_free(folder, overwrite=False)
            folder.clear()
            job.begin()
        {"run": _train_and_evaluate, "mean-mask": score_mean_mask, "u-net": train_unet}[job.kind](job)
        job.finish()


def one_by_one(jobs: Sequence[Job]) -> Iterator[Ended]:
    """Do jobs in this process, one after the other: an engine whose bars are seen and whose errors rise."""
    for job in jobs:
        logger.info("%s:", job.name)
        do(job)
        yield Ended(job, None)


def _train_and_evaluate(job: Job) -> None:
    folder = RunFolder(job.folder)
    if folder.summary.is_file() or folder.checkpoint.is_file():
        _point_to_files(folder, job.train)
    if not folder.summary.is_file():
        if folder.checkpoint.is_file():
            resume(folder.path)
        else:
            train(job.train, overwrite=True)
    evaluate(job.evaluate, pictures=Pictures(folder.evaluation / "pictures"))


def _point_to_files(folder: RunFolder, asked: TrainSettings) -> None:
    """Write into the settings of a begun run where its files lie now; what `--vram` has chosen stays."""
    now = from_anywhere(asked)
    moved = {"data": now.data, "group": now.group, "weights": now.weights, "output": now.output}
    write_config(folder.config, in_words(folder.settings().model_copy(update=moved)))


def _end_with_parent() -> None:
    """Stop as if by SIGTERM when the process that started this one is gone."""
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.read(), whose lock would block the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def main() -> int:
    """Read a job, do it and return the exit status; an error of samfit is the last line on stderr."""
    logging.basicConfig(format="samfit: %(message)s")
    logging.getLogger("samfit").setLevel(logging.INFO)
    job = Job.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        do(job)
    except SamfitError as error:
        print(f"samfit: error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
