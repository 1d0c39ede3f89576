"""What is shown while something runs: a bar on a terminal, a plain line now and then elsewhere.

Shown only where the logger `samfit` lets messages of level INFO through: the command line does so unless
`--quiet` is given; from Python, samfit is silent until the caller sets up logging.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from functools import cache
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

_INTERVAL = 10.0
"""Seconds between two plain lines."""
_WORTH_SAYING = 2.0
"""Seconds that a loop must take to get a plain line at its end."""


def is_first_process() -> bool:
    """Tell whether this is the process that speaks, of all that share a run.

    Known before the processes have joined each other: from what Lightning, torchrun and Slurm set.
    """
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


@cache
def console() -> Console:
    """Return where bars are shown: one for all, so that a bar within another stands below it."""
    return Console(stderr=True)


def track(items: Iterable[ItemT], description: str, total: int | None = None) -> Iterator[ItemT]:
    """Yield `items` and show on stderr how many have passed.

    `total`: how many there are, where `len(items)` cannot say. A loop that ends within two seconds leaves
    no line behind.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    if not logger.isEnabledFor(logging.INFO):
        yield from items
        return
    if console().is_terminal:
        yield from rich_track(items, description, total=total, console=console(), transient=True)
    else:
        yield from _plain(items, description, total)


def _plain(items: Iterable[ItemT], description: str, total: int | None) -> Iterator[ItemT]:
    start = said = monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        if monotonic() - said >= _INTERVAL and done != total:
            said = monotonic()
            logger.info("%s: %d%s", description, done, "" if total is None else f" of {total}")
    seconds = monotonic() - start
    if seconds >= _WORTH_SAYING:
        logger.info("%s: %d in %.0f s", description, done, seconds)
