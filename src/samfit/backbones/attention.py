"""Attention of a grid's cells among themselves, with decomposed relative positions, without whole maps.

The score of query n and key m is

    d^-½ q_n · k_m + q_n · R_h[y_n, y_m] + q_n · R_w[x_n, x_m],

as in MViTv2 (arXiv 2112.01526, section 4.1), with R[i, j] = table[i - j + size - 1]; only the first term is
scaled. The scores of all N cells are N² numbers a head, 805 MB for ViT-B at 1024 px, and a plain computation
holds several such maps. `chunked` and `folded` hold none; `eager` does, and is what they are compared with.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from samfit.backbones.chunks import cells_at_once, slices
from samfit.settings import AttentionKind

Relative = tuple[Tensor, Tensor]
"""R_h (H, H, d) and R_w (W, W, d), as `relative_positions` makes them."""

_ALIGNMENT = 8
"""torch's CUDA kernels without maps take heads whose width is a multiple of this."""


class GridAttention(nn.Module):
    """What attention of every family's blocks has: the way that it is computed."""

    kind: AttentionKind = "auto"
    """Handed to `attend`; set for all blocks of a backbone by `Backbone.attend`."""


def attend(qkv: Tensor, relative: Relative | None = None, kind: AttentionKind = "auto") -> Tensor:
    """Turn queries, keys and values (B, N, 3, heads, d) into answers (B, N, heads · d).

    `relative`: the relative positions of a grid of N = H · W cells in rows. Without them chunked and folded
    are both torch's own attention, which holds no map then.

    `auto` is chunked on a CPU, where for a global layer of ViT-B at 1024 px it takes 0.6 of folded's time, a
    fifth of its memory, and folded on CUDA. That was chosen by reading which kernels torch takes there, not
    by measurement.
    """
    if kind == "auto":
        kind = "folded" if qkv.device.type == "cuda" else "chunked"
    if kind == "chunked" and relative is not None:
        return _Chunked.apply(qkv, *relative).flatten(2)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    if kind == "eager":
        answer = _eager(query, key, value, relative)
    elif relative is None:
        answer = F.scaled_dot_product_attention(query, key, value)
    else:
        answer = _folded(query, key, value, relative)
    return answer.transpose(1, 2).flatten(2)


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Return R (size, size, d), R[i, j] = table[i - j + size - 1], of a table (L, d).

    A table of another length than 2 · size - 1 is resized linearly.
    """
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T[None], 2 * size - 1, mode="linear")[0].T
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place + size - 1]


def _offsets(query: Tensor, relative: Relative) -> tuple[Tensor, Tensor]:
    """Return q · R_h (..., rows, W, H) and q · R_w (..., rows, W, W) of queries (..., rows, W, d).

    `relative`: (rows, H, d) and (W, W, d). What a score has beside q · k is the sum of one number of each.
    """
    return (
        torch.einsum("...yxd,yjd->...yxj", query, relative[0]),
        torch.einsum("...yxd,xjd->...yxj", query, relative[1]),
    )


def _eager(query: Tensor, key: Tensor, value: Tensor, relative: Relative | None) -> Tensor:
    """Answer queries (B, heads, N, d) with maps of all scores."""
    scores = query * query.shape[-1] ** -0.5 @ key.mT
    if relative is not None:
        height, width = (len(positions) for positions in relative)
        by_row, by_column = _offsets(query.unflatten(2, (height, width)), relative)
        scores = scores + (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    return scores.softmax(-1) @ value


def _folded(query: Tensor, key: Tensor, value: Tensor, relative: Relative) -> Tensor:
    """Answer queries (B, heads, N, d) with torch's own attention, the offsets folded into its heads.

    [d^-½ q, q · R_h, q · R_w] · [k, onehot(y), onehot(x)] is the score. Values get as many columns: with
    heads of different widths torch would hold maps.
    """
    height, width = (len(positions) for positions in relative)
    dim = query.shape[-1]
    scaled = query * dim**-0.5
    by_row, by_column = _offsets(query.unflatten(2, (height, width)), relative)
    rows = torch.eye(height, dtype=key.dtype, device=key.device).repeat_interleave(width, 0)
    columns = torch.eye(width, dtype=key.dtype, device=key.device).repeat(height, 1)
    places = torch.cat([rows, columns], 1).expand(*key.shape[:2], -1, -1)
    missing = -(dim + height + width) % _ALIGNMENT
    answer = F.scaled_dot_product_attention(
        F.pad(torch.cat([scaled, by_row.flatten(2, 3), by_column.flatten(2, 3)], -1), (0, missing)),
        F.pad(torch.cat([key, places], -1), (0, missing)),
        F.pad(value, (0, height + width + missing)),
        scale=1.0,
    )
    return answer[..., :dim]


class _Chunked(torch.autograd.Function):
    """Attention that holds the scores of a few queries at a time and keeps its input alone for backward.

    Backward computes the probabilities P again. With S = d^-½ Q Kᵀ + offsets, O = P V and the gradient dO:
    dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - rowsum(P dP)), dK = d^-½ dSᵀ Q and dQ = d^-½ dS K + A R_h + B R_w,
    where A and B are dS summed over each row and over each column of keys; dR_h = Aᵀ Q and dR_w = Bᵀ Q.
    Half precision is computed in float32.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Return answers (B, N, heads, d) to qkv (B, N, 3, heads, d), with R_h `down` and R_w `across`."""
        ctx.save_for_backward(qkv, down, across)
        answer = torch.empty_like(qkv[:, :, 0])
        with torch.autocast(qkv.device.type, enabled=False):
            relative = _full(down), _full(across)
            for image, heads in _groups(qkv):
                query, key, value = _full(qkv[image, :, :, heads]).permute(1, 2, 0, 3)
                answer[image, :, heads] = _answer(query, key, value, relative).transpose(0, 1)
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of qkv, in one tensor, and of R_h and R_w where they are asked for."""
        qkv, down, across = ctx.saved_tensors
        of_qkv = torch.empty_like(qkv)
        with torch.autocast(qkv.device.type, enabled=False):
            relative = _full(down), _full(across)
            of_relative = None
            if any(ctx.needs_input_grad[1:]):
                of_relative = torch.zeros_like(relative[0]), torch.zeros_like(relative[1])
            for image, heads in _groups(qkv):
                query, key, value = _full(qkv[image, :, :, heads]).permute(1, 2, 0, 3)
                of_answer = _full(given[image, :, heads]).transpose(0, 1)
                gradients = _gradients(query, key, value, relative, of_answer, of_relative)
                for part, gradient in enumerate(gradients):
                    of_qkv[image, :, part, heads] = gradient.transpose(0, 1)
        return of_qkv, *(of_relative or (None, None))


def _full(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 if it is in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _groups(qkv: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield images and heads of qkv (B, N, 3, heads, d) whose maps stay within `CELLS`, or one head."""
    images, cells, _, heads, _ = qkv.shape
    for image in slices(images, 1):
        for group in slices(heads, max(1, cells_at_once() // cells**2)):
            yield image.start, group


def _rows(query: Tensor, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows of the grid, and the cells in them, whose maps stay within `CELLS`, or one row."""
    in_row = len(query) * width * height * width
    for rows in slices(height, max(1, cells_at_once() // in_row)):
        yield rows, slice(rows.start * width, rows.stop * width)


def _chances(query: Tensor, key: Tensor, relative: Relative) -> Tensor:
    """Return the probabilities (heads, n, N) of keys (heads, N, d) for queries (heads, n, d) in whole rows.

    `relative`: for the rows of the queries, (n / W, H, d) and (W, W, d).
    """
    by_row, by_column = _offsets(query.unflatten(1, (len(relative[0]), -1)), relative)
    scores = (by_row[..., :, None] + by_column[..., None, :]).flatten(3).flatten(1, 2)
    scores.baddbmm_(query, key.mT, alpha=query.shape[-1] ** -0.5)
    return scores.softmax(-1)


def _answer(query: Tensor, key: Tensor, value: Tensor, relative: Relative) -> Tensor:
    """Answer all queries (heads, N, d) of a few heads, some rows at a time."""
    answer = torch.empty_like(query)
    down, across = relative
    for rows, cells in _rows(query, len(down), len(across)):
        answer[:, cells] = _chances(query[:, cells], key, (down[rows], across)) @ value
    return answer


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relative: Relative,
    of_answer: Tensor,
    of_relative: Relative | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values (heads, N, d) of a few heads, some rows at a time.

    `of_answer`: the answer's, (heads, N, d). `of_relative`: what those of R_h and R_w are added to.
    """
    scale = query.shape[-1] ** -0.5
    down, across = relative
    grid = len(down), len(across)
    of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for rows, cells in _rows(query, *grid):
        asked, answered = query[:, cells], of_answer[:, cells]
        chances = _chances(asked, key, (down[rows], across))
        of_value.baddbmm_(chances.mT, answered)
        of_scores = torch.ops.aten._softmax_backward_data(answered @ value.mT, chances, -1, chances.dtype)
        of_key.baddbmm_(of_scores.mT, asked, alpha=scale)
        by_place = of_scores.unflatten(2, grid).unflatten(1, (-1, grid[1]))
        of_down, of_across = by_place.sum(4), by_place.sum(3)
        of_offsets = torch.einsum("nyxj,yjd->nyxd", of_down, down[rows])
        of_offsets += torch.einsum("nyxj,xjd->nyxd", of_across, across)
        of_query[:, cells] = (of_scores @ key).mul_(scale) + of_offsets.flatten(1, 2)
        if of_relative is not None:
            asked = asked.unflatten(1, (-1, grid[1]))
            of_relative[0][rows] += torch.einsum("nyxj,nyxd->yjd", of_down, asked)
            of_relative[1].add_(torch.einsum("nyxj,nyxd->xjd", of_across, asked))
    return of_query, of_key, of_value
