"""What the scripts run on, in the words of the benchmarks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from record import device_words  # pyright: ignore[reportMissingImports]


def machine(threads: int | None = None, device: str = "cpu") -> str:
    """Return the GPU, or the processor and how many threads of it are used: torch's own if not given."""
    return device_words(device, threads)
