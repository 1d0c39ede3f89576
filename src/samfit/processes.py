"""What processes that train together tell each other.

Before anything is exchanged they agree that none of them ran out of memory. One that did says so once; all
others learn of it at their next exchange, so that every process leaves a step at the same place.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

ValueT = TypeVar("ValueT")

_BUCKET_BYTES = 25 * 2**20
"""Gradients are joined to about this size before they are exchanged, as torch's own data parallelism does."""


class AnotherRanOut(Exception):
    """Another process ran out of memory. Never seen outside of a step."""


def several() -> bool:
    """Return whether there is anybody to talk to."""
    return dist.is_initialized() and dist.get_world_size() > 1


def anywhere(here: bool, device: torch.device) -> bool:
    """Return whether any process says so. `device`: what the processes' backend exchanges."""
    if not several():
        return here
    flag = torch.full((1,), float(here), device=device)
    dist.all_reduce(flag)
    return bool(flag.item())


def agree(device: torch.device) -> None:
    """Raise `AnotherRanOut` if another process ran out of memory."""
    if several() and anywhere(False, device):
        raise AnotherRanOut


def most(count: int, device: torch.device) -> int:
    """Return the largest of what every process passes. Raises `AnotherRanOut`."""
    if not several():
        return count
    largest = torch.full((1,), count, device=device)
    agree(device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest.item())


def total(values: Tensor) -> Tensor:
    """Return the sum of what every process passes; `values` stay as they are."""
    values = values.clone()
    add_up(values)
    return values


def add_up(values: Tensor) -> None:
    """Put the sum of what every process passes into `values`. Raises `AnotherRanOut`."""
    if several():
        agree(values.device)
        dist.all_reduce(values)


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Put the sum of every process's gradients into `grad`; all of them have gradients for the same ones."""
    if not several():
        return
    for gradients in _buckets([p.grad for p in parameters if p.grad is not None]):
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        add_up(joined)
        for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def gathered(value: ValueT) -> list[ValueT]:
    """Return what every process passes, in the order of their ranks; not for the middle of a step."""
    if not several():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_alike(value: str) -> bool:
    """Return whether every process passes the same text."""
    return len(set(gathered(value))) == 1


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield gradients in groups of one dtype and of about `_BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (bucket[0].dtype != gradient.dtype or _bytes(bucket) >= _BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
