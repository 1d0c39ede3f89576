"""The engine of a cluster: jobs in the queue of Slurm, or of this machine to try one, through submitit.

Each queued job starts the same process as on one machine (`samfit.compare.here`) on the machine that the
queue gives it, and ends it by the same signal. What is submitted is a function of this module and text.
The folder of the report must be the same on all machines.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from samfit.compare.here import SHOWN, run_here
from samfit.compare.jobs import Job
from samfit.compare.running import Ended, Place, log_of, run
from samfit.errors import Interrupted, SettingError
from samfit.files import storage_errors
from samfit.packages import require_packages

if TYPE_CHECKING:
    from submitit import Executor
    from submitit import Job as Queued

ClusterKind = Literal["local", "slurm"]
_POLL: Mapping[ClusterKind, float] = {"local": 0.05, "slurm": 1.0}
_STOPPED = "the cluster stopped its job, at its time limit or to make room; the same command goes on with it"
_PATIENCE = 60.0
"""Seconds for a stopped job to write its checkpoint; Slurm itself gives it 30 if not told otherwise."""
_SIGHT = 30
"""Seconds until a network file system must have shown what another machine wrote."""
_ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"),
    *("REVOKED", "PREEMPTED"),  # submitit waits for a preempted job to be queued again, which ours are not
    *("FINISHED", "INTERRUPTED"),  # of this machine
}
"""States from which no job goes on."""
_OPTIONS = {
    "signal": "TERM@90",  # what makes a run write its checkpoint, so many seconds before the time limit
    "no_requeue": True,  # what became of a job is said at once, and the next call submits it again
}
"""Options of sbatch unless the user gives others."""
_CPUS = 'if [ -n "$SLURM_CPUS_PER_TASK" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi'
"""Some versions of srun do not take the number of CPUs from sbatch by themselves."""


def require_cluster(cluster: ClusterKind) -> None:
    """Raise `SettingError` if jobs cannot be submitted from this machine."""
    require_packages(f"--cluster {cluster}", ("submitit",))
    if cluster == "slurm" and not all(map(shutil.which, ("sbatch", "srun"))):
        raise SettingError(
            "--cluster slurm: there is no sbatch here; call it where jobs are submitted, "
            "or leave --cluster out"
        )


def run_on_cluster(
    jobs: Sequence[Job],
    places: Sequence[Place],
    cluster: ClusterKind,
    options: Mapping[str, str],
    folder: Path,
) -> Iterator[Ended]:
    """Submit jobs, one in each place at a time, and yield each as it ends.

    `options`: those of `sbatch`, by name. `folder`: where what submitit writes lies until this ends; all
    machines of the cluster must see it. Signals are as in `samfit.compare.running`. Raises
    `SettingError` if the very first job is refused.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = tempfile.TemporaryDirectory(prefix=".cluster-", dir=folder, ignore_cleanup_errors=True)
    with files as name:
        queue = _Queue(_executor(cluster, options, Path(name)), folder)
        yield from run(jobs, places, queue.submit, _POLL[cluster])


def work(text: str, place: Place) -> str | None:
    """Do a job on the machine that the queue chose; return what to tell the user, or None if it is done."""
    try:
        (ended,) = run_here([Job.from_json(text)], [place])
    except Interrupted:
        return _STOPPED
    return ended.error


def _executor(cluster: ClusterKind, options: Mapping[str, str], folder: Path) -> "Executor":
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # else it writes on stdout and closes all logs
    from submitit import LocalExecutor, SlurmExecutor

    if cluster == "local":
        executor = LocalExecutor(folder)
        executor.update_parameters(timeout_min=60 * 24 * 365)  # its own limit is two minutes
        return executor
    given = {name.replace("-", "_"): value for name, value in options.items()}
    executor = SlurmExecutor(folder)
    # Its own limit is five minutes, and clusters that keep accounts may know no wckey 'submitit'.
    executor.update_parameters(time=None, wckey=None, setup=[_CPUS], additional_parameters=_OPTIONS | given)
    return executor


class _Queue:
    """Submits jobs."""

    def __init__(self, executor: "Executor", folder: Path):
        self._executor, self._folder = executor, folder
        self._has_taken_one = False

    def submit(self, job: Job, place: Place) -> "_Queued | _Refused":
        from submitit.core.utils import FailedJobError

        self._executor.update_parameters(job_name=f"samfit-{job.name}")
        # The local queue's processes inherit what is blocked: Ctrl-C on the terminal would end them at once.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with storage_errors(self._folder):
                queued = self._executor.submit(work, job.to_json(), dict(place))
        except FailedJobError as error:
            if not self._has_taken_one:
                raise SettingError(f"--cluster slurm: sbatch refused the first job: {error}") from error
            return _Refused(f"sbatch refused it: {error}")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._has_taken_one = True
        return _Queued(job, queued)


class _Refused:
    """A job that the cluster did not take."""

    def __init__(self, reason: str):
        self._reason = reason

    def has_ended(self) -> bool:
        return True

    def error(self) -> str:
        return self._reason

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class _Queued:
    """A job that the cluster took."""

    def __init__(self, job: Job, queued: "Queued[Any]"):
        self._job, self._queued = job, queued
        self._stopped: float | None = None

    def has_ended(self) -> bool:
        if self._stopped is not None and time.monotonic() > self._stopped + _PATIENCE:
            return True
        done = self._queued.done(force_check=self._stopped is not None)  # asks sacct, seldom if not forced
        return (done and self._has_answer()) or self._state() in _ENDED

    def error(self) -> str | None:
        from submitit.core.utils import UncompletedJobError

        if not self._has_answer() and self._state() != "COMPLETED":
            return self._died()
        try:
            told = self._queued.result()
        except UncompletedJobError:
            return self._died()
        return told or self._unseen()

    def stop(self) -> None:
        from submitit import LocalJob

        self._stopped = time.monotonic()
        if isinstance(self._queued, LocalJob):
            os.kill(int(self._queued.job_id), signal.SIGTERM)  # its cancel() gives a second, too short
        else:
            self._queued.cancel(check=False)

    def kill(self) -> None:
        from submitit import LocalJob

        self.stop()
        if isinstance(self._queued, LocalJob):
            for process in _started_by(self._queued.job_id):
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)

    def _has_answer(self) -> bool:
        return self._queued.paths.result_pickle.exists()

    def _state(self) -> str:
        return self._queued.state.partition(" ")[0]  # Slurm says who: CANCELLED by 1000

    def _died(self) -> str:
        said = (self._queued.stderr() or "").strip()[-SHOWN:]
        told = f"the cluster ended its job {self._queued.job_id} ({self._state()}); see {log_of(self._job)}"
        return f"{told}: …{said}" if said else told

    def _unseen(self) -> str | None:
        """Wait until what another machine wrote is seen here; return what to tell if it never is."""
        for _ in range(_SIGHT):
            with suppress(FileNotFoundError):
                os.listdir(self._job.folder)  # makes a network file system look again
            if self._job.is_finished():
                return None
            time.sleep(1)
        return f"its job ended well, but {self._job.folder} does not show it; is it the same on all machines?"


def _started_by(process: str) -> Iterator[str]:
    """Yield what a process has started and what that has, as Linux says; elsewhere nothing."""
    with suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from _started_by(child)
            yield child
