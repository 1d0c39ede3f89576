"""What it looks like when a device runs out of memory, and how what a failed attempt held is let go."""

import gc
import re

import torch

_SAID = re.compile(
    "DefaultCPUAllocator|std::bad_alloc|MPS backend out of memory|CUDA error: out of memory"
    "|CUBLAS_STATUS_ALLOC_FAILED|could not (create|execute) a primitive$"
)
"""What errors say that have no type of their own; the last is what oneDNN says on a CPU."""


def ran_out(error: Exception) -> bool:
    """Return whether an error says that the device, or the machine, is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def let_go() -> None:
    """Give back what nothing refers to any more, to the device too.

    To be called outside of the `except` block: the error's traceback refers to everything in its frames.
    """
    gc.collect()  # frames that failed may refer to themselves
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
