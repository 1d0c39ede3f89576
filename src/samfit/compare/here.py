"""The engine of one machine: every job in a process of its own, as many at once as there are places.

Another engine, for a cluster say, is another function from jobs to `Ended`; a job is text
(`Job.to_json`), and `python -m samfit.compare.work` does the one that it reads from stdin.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samfit.compare.jobs import Job
from samfit.engine.stopping import StopRequest
from samfit.errors import Interrupted
from samfit.files import storage_errors

WORK = (sys.executable, "-m", "samfit.compare.work")
"""The command that does a job."""
_POLL = 0.05
"""Seconds between two looks at the processes."""
_SHOWN = 600
"""Characters that are shown of an error that samfit did not raise on purpose."""


@dataclass(frozen=True)
class Ended:
    """A job that is done, or has failed."""

    job: Job
    error: str | None
    """What to tell the user, or None if it is done."""


Engine = Callable[[Sequence[Job]], Iterator[Ended]]
"""Does jobs in any order and yields each as it ends. One that fails does not end the others."""


def places() -> list[dict[str, str]]:
    """Return the environment of each process that may run at the same time: one a GPU, or one."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(one) for one in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names] or [{}]


def run_here(jobs: Sequence[Job], places: Sequence[Mapping[str, str]] = ({},)) -> Iterator[Ended]:
    """Do jobs in processes of this machine, one in each place at a time; yield each as it ends.

    `places`: what each adds to the environment. What a process says lies beside its folder, in `NAME.log`.
    On Ctrl-C or SIGTERM every process is let write its checkpoint; then `Interrupted` is raised. The second
    Ctrl-C ends them at once.
    """
    waiting, free = list(jobs), list(places)
    running: list[tuple[Job, Mapping[str, str], subprocess.Popen[bytes]]] = []
    with StopRequest() as stop:
        try:
            while running or (waiting and stop.signal is None):
                while waiting and free and stop.signal is None:
                    job, place = waiting.pop(0), free.pop(0)
                    running.append((job, place, _start(job, place)))
                if stop.signal is not None:  # Ctrl-C reaches them by itself only on a terminal
                    for _, _, process in running:
                        process.send_signal(signal.SIGTERM)
                    break
                ended = [one for one in running if one[2].poll() is not None]
                for one in ended:
                    running.remove(one)
                    job, place, process = one
                    free.append(place)
                    _wait(process)
                    yield Ended(job, _error(job, process.returncode))
                if not ended:
                    time.sleep(_POLL)
            for _, _, process in running:
                _wait(process)
        finally:
            for _, _, process in running:
                process.kill()
                _wait(process)
        if stop.signal is not None:
            raise Interrupted(
                "stopped; finished runs are kept, and the same command goes on with the others",
                128 + stop.signal,
            )


def log_of(job: Job) -> Path:
    """Return where what the process of a job says lies."""
    return job.folder.with_name(f"{job.folder.name}.log")


def _start(job: Job, place: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the process of a job. Its stdin stays open: when that ends, so does the process."""
    log = log_of(job)
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                WORK,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=os.environ | place,
                start_new_session=True,  # so that Ctrl-C reaches it once
            )
    assert process.stdin is not None
    try:
        process.stdin.write(job.to_json().encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended already; its log says why
    return process


def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process to end, and close its stdin only then."""
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _error(job: Job, status: int) -> str | None:
    """Return what a process that has ended tells, or None if it did its job."""
    if status == 0:
        return None
    text = log_of(job).read_text(encoding="utf-8", errors="replace").strip()
    raised = re.findall(r"^samfit: error: (.*)", text, re.MULTILINE | re.DOTALL)
    if raised:
        return raised[-1]
    if status < 0:
        name = signal.Signals(-status).name
        memory = ", which the system sends when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}; see {log_of(job)}"
    return f"its process ended with status {status}: …{text[-_SHOWN:]}"
