"""What it looks like when a device runs out of memory, and how an image passes that did not at first."""

import gc
import logging
import re
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from samfit.backbones.chunks import Limits, limited
from samfit.errors import RunError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)

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


def on_device(module: ModuleT, device: torch.device) -> ModuleT:
    """Move a module to a device and return it. Raises `RunError` if there is no memory for its weights."""
    moved = unless_memory_runs_out(lambda: module.to(device))
    if moved is None:
        size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
        raise RunError(
            f"out of memory while the weights of the model ({size / 1e9:.2f} GB) went to the device: free it "
            "of other programs, choose a smaller --backbone ('samfit plan --vram SIZE' lists what fits), or "
            "take --accelerator cpu"
        )
    return moved


class OneByOne:
    """Passes images through a model one by one, without gradient; in smaller chunks once memory ran out."""

    def __init__(self):
        self._divisor = 1

    def __call__(self, function: Callable[[], ResultT]) -> ResultT:
        """Return what a function makes of one image. Raises `RunError` if no chunks are small enough."""
        while True:
            with limited(Limits(divisor=self._divisor)):
                result = unless_memory_runs_out(function)
            if result is not None:
                return result
            if self._divisor == LARGEST_DIVISOR:
                raise RunError(
                    "out of memory while a single image passed the model: free the device of other programs, "
                    "or take --accelerator cpu, or a run with a smaller --image-size or --backbone"
                )
            self._divisor *= 2
            logger.warning(
                "out of memory while one image passed the model: repeating it and going on in chunks of 1/%d "
                "of their size",
                self._divisor,
            )
