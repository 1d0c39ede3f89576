"""Work in chunks: a large temporary becomes many small ones, one after the other."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CELLS = 2**20
"""Most cells of an attention map that exist at once, of one grid row at least (measured on two cores: fewer
are slower, more are no faster)."""
TOKENS = 512
"""About how many tokens pass a layer at once (measured: more are no faster)."""

_first_only = False


def slices(total: int, size: int) -> Iterator[slice]:
    """Yield slices of `size`, the last one shorter, that cover `total`."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
        if _first_only:
            return


@contextlib.contextmanager
def first_only() -> Iterator[None]:
    """Let every loop over `slices` end after its first chunk, inside the block.

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
    for rows in slices(tokens.shape[1], unit * max(1, TOKENS // in_unit)):
        part = tokens[:, rows]
        part += function(part)
    return tokens
