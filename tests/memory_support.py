"""How many bytes a piece of code keeps for backward."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def kept_bytes(function: Callable[[], Tensor], without: Iterable[Tensor] = ()) -> int:
    """Return the bytes that autograd keeps after a call, every storage once, without those of `without`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in without}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
