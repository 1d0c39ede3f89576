"""The loop of every engine: start jobs where there is a place, yield each as it ends, stop them together.

An engine is a function from jobs to `Ended`: `run` with a way to start a job. A job is text
(`Job.to_json`), and `python -m samfit.compare.work` does the one that it reads from stdin.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from samfit.compare.jobs import Job
from samfit.engine.stopping import StopRequest
from samfit.errors import Interrupted

Place = Mapping[str, str]
"""What one of the jobs that may run at the same time adds to the environment."""


@dataclass(frozen=True)
class Ended:
    """A job that is done, or has failed."""

    job: Job
    error: str | None
    """What to tell the user, or None if it is done."""


Engine = Callable[[Sequence[Job]], Iterator[Ended]]
"""Does jobs in any order and yields each as it ends. One that fails does not end the others."""


class Started(Protocol):
    """A job that was started, wherever it runs."""

    def has_ended(self) -> bool:
        """Return whether it has, without waiting."""
        ...

    def error(self) -> str | None:
        """Return what to tell the user of a job that has ended, or None if it is done."""
        ...

    def stop(self) -> None:
        """Ask it to write its checkpoint and to end."""
        ...

    def kill(self) -> None:
        """See that it does not go on when nobody waits for it any more."""
        ...


def run(
    jobs: Sequence[Job], places: Sequence[Place], start: Callable[[Job, Place], Started], poll: float
) -> Iterator[Ended]:
    """Start jobs, one in each place at a time, and yield each as it ends.

    `poll`: seconds between two looks at them. On Ctrl-C or SIGTERM every job is let write its checkpoint;
    then `Interrupted` is raised. The second Ctrl-C ends them at once.
    """
    waiting, free = list(jobs), list(places)
    running: list[tuple[Job, Place, Started]] = []
    with StopRequest() as stop:
        try:
            while running or (waiting and stop.signal is None):
                while waiting and free and stop.signal is None:
                    job, place = waiting.pop(0), free.pop(0)
                    running.append((job, place, start(job, place)))
                if stop.signal is not None:  # Ctrl-C reaches them by itself only on a terminal
                    for _, _, started in running:
                        started.stop()
                    break
                ended = [one for one in running if one[2].has_ended()]
                for one in ended:
                    running.remove(one)
                    job, place, started = one
                    free.append(place)
                    yield Ended(job, started.error())
                if not ended:
                    time.sleep(poll)
            while not all(started.has_ended() for _, _, started in running):
                time.sleep(poll)
        finally:
            for _, _, started in running:
                if not started.has_ended():
                    started.kill()
        if stop.signal is not None:
            raise Interrupted(
                "stopped; finished runs are kept, and the same command goes on with the others",
                128 + stop.signal,
            )


def log_of(job: Job) -> Path:
    """Return where what the process of a job says lies."""
    return job.folder.with_name(f"{job.folder.name}.log")
