"""Counting the bytes of tensors that have no values, from the moment they are made until they die."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counter(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes inside the block.

    What lies inside an operation (the workspace of a convolution) is not seen. `known`: tensors that were
    there before, which are not counted.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self.bytes = 0
        """What is alive now."""
        self.gradients = 0
        """What of it was handed to `note_gradient`."""
        self.peak = 0
        """The most that was alive at once."""
        self.gradients_at_peak = 0

    def note_gradient(self, parameter: Tensor) -> None:
        """Say that a parameter's gradient is there."""
        assert parameter.grad is not None
        self.gradients += parameter.grad.nbytes

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it made."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.bytes += size
        if self.bytes > self.peak:
            self.peak, self.gradients_at_peak = self.bytes, self.gradients
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.bytes -= size


def without_values(module: nn.Module, mode: FakeTensorMode) -> None:
    """Exchange every parameter and buffer of a module for one of the same form without values."""
    made: dict[int, Tensor] = {}

    def empty(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            fake = mode.from_tensor(tensor.detach())
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (
                nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_parameter else fake
            )
        return made[id(tensor)]

    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            held = part._parameters if isinstance(tensor, nn.Parameter) else part._buffers
            held[name] = empty(tensor)  # pyright: ignore[reportArgumentType]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, every storage once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
