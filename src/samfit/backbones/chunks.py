"""Work in chunks: a large temporary becomes many small ones, one after the other."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 2**20
"""Most cells of an attention map that exist at once, of one grid row at least (measured on two cores: fewer
are slower, more are no faster)."""
TOKENS = 512
"""About how many tokens pass a layer at once (measured: more are no faster)."""

_first_only = False


@dataclass(frozen=True)
class Limits:
    """How much passes at once at most, wherever results are the same within rounding."""

    images: int | None = None
    """Images that pass together where they can pass one by one; None where each place knows best."""
    divisor: int = 1
    """What the sizes of chunks inside an image are divided by."""


_limits = Limits()


def limits() -> Limits:
    """Return what holds now."""
    return _limits


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Let `limits` hold inside the block, which must enclose the backward pass too.

    They hold for the whole process: on a GPU, torch goes backward in a thread of its own.
    """
    global _limits
    before, _limits = _limits, limits
    try:
        yield
    finally:
        _limits = before


def cells_at_once() -> int:
    """Return `CELLS` within the limits."""
    return CELLS // _limits.divisor


def tokens_at_once() -> int:
    """Return `TOKENS` within the limits."""
    return TOKENS // _limits.divisor


def slices(total: int, size: int) -> Iterator[slice]:
    """Yield slices of `size`, the last one shorter, that cover `total`."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
        if _first_only:
            return


def is_first_enough() -> bool:
    """Tell whether `first_only` holds now."""
    return _first_only


@contextlib.contextmanager
def first_only() -> Iterator[None]:
    """Let every loop over chunks end after its first one, inside the block.

    For counting memory under fake tensors: they have no values, and the first chunk is the largest.
    """
    global _first_only
    _first_only = True
    try:
        yield
    finally:
        _first_only = False


def plus(tokens: Tensor, function: Callable[[Tensor], Tensor], unit: int = 1) -> Tensor:
    """Return `tokens` + `function(tokens)`; without gradient in chunks, written over `tokens`.

    `tokens`: (B, rows, …, width). `function` returns the shape that it is given and works on each `unit` rows
    by themselves; `unit` is all rows if it needs them all.
    """
    if torch.is_grad_enabled():
        return tokens + function(tokens)
    in_unit = unit * tokens[:, 0].numel() // tokens.shape[-1]
    for rows in slices(tokens.shape[1], unit * max(1, tokens_at_once() // in_unit)):
        part = tokens[:, rows]
        part += function(part)
    return tokens
