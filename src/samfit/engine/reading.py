"""Data that processes of their own read beside the training."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset

from samfit.errors import SamfitError


def reading(data: Dataset[Any], workers: int, **choices: Any) -> Iterator[Any]:
    """Yield what a `DataLoader` of `data` with `workers` processes yields, and with its own other `choices`.

    Errors of samfit are raised as they were in the process that read.

    Ctrl-C and SIGTERM often come to all processes of a command, from a terminal, `timeout` or Slurm. Those
    that read go on then, for without them the main process could not end its step; it ends them itself.
    Where there is no `sigwaitinfo`, as on macOS, SIGTERM ends them at once.
    """
    stay = partial(_leave_stopping_to, os.getpid())
    try:
        yield from DataLoader(data, num_workers=workers, worker_init_fn=stay, **choices)
    except SamfitError as error:
        # Torch puts the traceback of the other process before the message.
        _, before, message = str(error).rpartition(f"{type(error).__module__}.{type(error).__name__}: ")
        if not before:
            raise
        raise type(error)(message.rstrip("\n")) from None


def _leave_stopping_to(main: int, _: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        # Blocked in all threads that start from now on too, so that it waits for the one that asks for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told_by, args=(main,), daemon=True).start()


def _end_when_told_by(main: int) -> None:
    """Wait for the SIGTERM of the main process itself, which gives up the loader so, and ignore others.

    If that were ignored as well, a command whose reading failed would wait for its readers for ever.
    """
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main:
        pass
    os._exit(0)
