"""What is shown of an epoch while it is trained."""

import logging
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samfit.progress import console

logger = logging.getLogger(__name__)


class EpochBar:
    """A bar over the steps of an epoch, on a terminal; elsewhere the line that each epoch logs is enough."""

    def __init__(self, epochs: int, *, show: bool):
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(),
            transient=True,
            disable=not (show and console().is_terminal and logger.isEnabledFor(logging.INFO)),
        )
        self._task = self._progress.add_task("")
        self._description = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, epoch: int, done: int, steps: int) -> None:
        """Begin an epoch (counted from 1) of which so many steps are done."""
        self._description = f"epoch {epoch} of {self._epochs}"
        self._progress.reset(self._task, total=steps, completed=done, description=self._description)

    def advance(self, loss: float) -> None:
        """Show that a step is done, and the mean loss of the epoch so far."""
        description = f"{self._description}, loss {loss:.4f}"
        self._progress.update(self._task, advance=1, description=description)
