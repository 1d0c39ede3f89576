"""Does the one job that it reads from stdin: `python -m samfit.compare.work`."""

import logging
import os
import signal
import sys
import threading
import time

from filelock import FileLock

from samfit.compare.jobs import Job
from samfit.compare.mean_mask import score_mean_mask
from samfit.compare.unet import train_unet
from samfit.engine.evaluation import evaluate
from samfit.engine.pictures import Pictures
from samfit.engine.training import resume, train
from samfit.errors import SamfitError
from samfit.runs import RunFolder, require_free

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


def _train_and_evaluate(job: Job) -> None:
    folder = RunFolder(job.folder)
    if not folder.summary.is_file():
        if folder.checkpoint.is_file():
            resume(folder.path)
        else:
            train(job.train, overwrite=True)
    evaluate(job.evaluate, pictures=Pictures(folder.evaluation / "pictures"))


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
