"""The engine of one machine: every job in a process of its own, as many at once as there are places."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from samfit.compare.jobs import Job
from samfit.compare.running import Ended, Place, log_of, run
from samfit.files import storage_errors

WORK = (sys.executable, "-m", "samfit.compare.work")
"""The command that does a job."""
SHOWN = 600
"""Characters that are shown of an error that samfit did not raise on purpose."""
_POLL = 0.05


def devices() -> list[Place]:
    """Return a place for each GPU that may be used, or one that adds nothing."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(one) for one in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names] or [{}]


def run_here(jobs: Sequence[Job], places: Sequence[Place] = ({},)) -> Iterator[Ended]:
    """Do jobs in processes of this machine, one in each place at a time; yield each as it ends.

    What a process says lies beside its folder, in `NAME.log`. Signals are as in `samfit.compare.running`.
    """
    return run(jobs, places, _Process, _POLL)


class _Process:
    """The process of a job. Its stdin stays open until it has ended: when that is closed, it stops."""

    def __init__(self, job: Job, place: Place):
        self._job = job
        log = log_of(job)
        with storage_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    WORK,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    # As the command line has it: threads that wait awake take a machine from each other.
                    env={"OMP_WAIT_POLICY": "passive", **os.environ, **place},
                    start_new_session=True,  # so that Ctrl-C reaches it once
                )
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        try:
            self._stdin.write(job.to_json().encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already; its log says why

    def has_ended(self) -> bool:
        if self._process.poll() is None:
            return False
        self._stdin.close()
        return True

    def error(self) -> str | None:
        return _error(self._job, self._process.returncode)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()


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
    return f"its process ended with status {status}: …{text[-SHOWN:]}"
