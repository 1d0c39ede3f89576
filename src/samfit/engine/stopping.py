"""Ctrl-C and SIGTERM: remembered until the loop reaches a place from which the run can go on."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class StopRequest:
    """Context in which the first Ctrl-C or SIGTERM is a request to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that came, or None."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
