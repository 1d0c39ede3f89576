"""Data that processes of their own read beside the training."""

import signal
from typing import Any

from torch.utils.data import DataLoader, Dataset


def reading(data: Dataset[Any], workers: int, **choices: Any) -> DataLoader[Any]:
    """Return a loader of `data` with `workers` processes that read, and with torch's own other `choices`.

    The processes ignore Ctrl-C and SIGTERM, which from a terminal, `timeout` or Slurm come to all of a
    command: without them the main process could not end the step that it is in.
    """
    return DataLoader(data, num_workers=workers, worker_init_fn=_ignore_stops, **choices)


def _ignore_stops(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
