"""What it looks like when a device runs out of memory, and how an image passes that did not at first."""

import gc
import logging
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from samfit.backbones.chunks import Limits, limited
from samfit.errors import RunError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

LARGEST_DIVISOR = 4
"""Of chunks inside an image: a quarter is one row of an attention map at 1024 px, which is cut no further."""

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


def unless_memory_runs_out(function: Callable[[], ResultT]) -> ResultT | None:
    """Return what a function returns, or None, with all that it held given back, if memory ran out."""
    try:
        return function()
    except Exception as error:
        if not ran_out(error):
            raise
    let_go()
    return None


def of_one_image(function: Callable[[], ResultT]) -> ResultT:
    """Return what a function makes of one image without gradient, in smaller chunks where memory runs out.

    Raises `RunError` if it does not suffice for the smallest.
    """
    divisor = 1
    while True:
        with limited(Limits(divisor=divisor)):
            result = unless_memory_runs_out(function)
        if result is not None:
            return result
        if divisor == LARGEST_DIVISOR:
            raise RunError(
                "out of memory while a single image passed the model: free the device of other programs, or "
                "take --accelerator cpu, or a run with a smaller --image-size or --backbone"
            )
        divisor *= 2
        logger.warning(
            "out of memory while one image passed the model: repeating it in chunks of 1/%d of their size",
            divisor,
        )
