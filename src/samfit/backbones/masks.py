"""More masks for a mask decoder than the published four."""

from copy import deepcopy

import torch
from torch import Tensor, nn

PUBLISHED = 4
"""Masks of every published decoder."""
_CANDIDATES = (1, 2, 3)
"""The published masks that stand for objects of their own; mask 0 is the single answer."""


def add_masks(
    tokens: nn.Embedding, kernels: nn.ModuleList, iou: nn.Linear, count: int
) -> tuple[nn.Embedding, nn.ModuleList, nn.Linear]:
    """Return a decoder's mask tokens, hyper-networks and last layer of the IoU head for `count` masks.

    What is added are copies of the candidates 1, 2, 3 in turn: mask 4 is a copy of 1. With `count` masks or
    more there already, everything is returned as it is.
    """
    have = tokens.num_embeddings
    if count <= have:
        return tokens, kernels, iou
    sources = [*range(have), *(_CANDIDATES[(mask - 1) % len(_CANDIDATES)] for mask in range(have, count))]
    return (
        nn.Embedding.from_pretrained(_rows(tokens.weight, sources), freeze=not tokens.weight.requires_grad),
        nn.ModuleList(
            kernels[source] if mask < have else deepcopy(kernels[source])
            for mask, source in enumerate(sources)
        ),
        _wider(iou, sources),
    )


def _rows(values: Tensor, sources: list[int]) -> Tensor:
    return values.detach()[torch.tensor(sources, device=values.device)]


def _wider(layer: nn.Linear, sources: list[int]) -> nn.Linear:
    wider = nn.Linear(layer.in_features, len(sources), device="meta")  # draws no numbers
    wider.weight = nn.Parameter(_rows(layer.weight, sources), requires_grad=layer.weight.requires_grad)
    wider.bias = nn.Parameter(_rows(layer.bias, sources), requires_grad=layer.bias.requires_grad)
    return wider
