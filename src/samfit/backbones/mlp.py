"""Two linear layers with GELU between them; frozen, they keep their input alone for backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from samfit.backbones.chunks import slices, tokens_at_once


def feed_forward(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """Return second(GELU(first(x))) of x (..., width).

    Where backward may follow and both are plain linear layers without trained parameters, what lies between
    them is computed again there.
    """
    if torch.is_grad_enabled() and _is_frozen_linear(first) and _is_frozen_linear(second):
        kept = _Kept.apply(x, first.weight, first.bias, second.weight)
        return _Mapped.apply(kept, first.weight, first.bias, second.weight, second.bias)
    return second(F.gelu(first(x)))


def _is_frozen_linear(layer: nn.Module) -> bool:
    """Tell whether `layer` is no subclass or wrapper, as for low-rank updates, and is not trained."""
    return type(layer) is nn.Linear and not any(parameter.requires_grad for parameter in layer.parameters())


def _dtype_for(x: Tensor) -> torch.dtype:
    """Return the type in which a layer computes with x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _Mapped(torch.autograd.Function):
    """W₂ GELU(W₁ x + b₁) + b₂ in chunks of tokens. Hands its gradient on to `_Kept`, which keeps x.

    Two functions, because what is computed again for a checkpoint ends where the last tensor is kept: so the
    MLP at the end of a block is not computed again for nothing.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        dtype = _dtype_for(x)
        w1, b1, w2, b2 = (tensor.to(dtype) for tensor in (w1, b1, w2, b2))
        tokens = x.flatten(0, -2)
        mapped = tokens.new_empty(len(tokens), len(w2), dtype=dtype)
        for part in slices(len(tokens), tokens_at_once()):
            hidden = F.gelu(torch.addmm(b1, tokens[part].to(dtype), w1.T))
            torch.addmm(b2, hidden, w2.T, out=mapped[part])
            del hidden  # before the next is made
        return mapped.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient g (..., width) at the output, in the place of the one of x."""
        return gradient, None, None, None, None


class _Kept(torch.autograd.Function):
    """x, kept for backward, which turns the gradient that `_Mapped` hands on into the one of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
        """Return x (..., width)."""
        ctx.save_for_backward(x, w1, b1, w2)
        ctx.dtype = _dtype_for(x)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient of x: W₁ᵀ (GELU'(W₁ x + b₁) · W₂ᵀ g) for g (..., width)."""
        x, *frozen = ctx.saved_tensors
        w1, b1, w2 = (tensor.to(ctx.dtype) for tensor in frozen)
        tokens, gradients = x.flatten(0, -2), gradient.flatten(0, -2).to(ctx.dtype)
        result = torch.empty_like(tokens)
        for part in slices(len(tokens), tokens_at_once()):
            hidden = torch.addmm(b1, tokens[part].to(ctx.dtype), w1.T)
            hidden = torch.ops.aten.gelu_backward(gradients[part] @ w2, hidden)
            result[part] = hidden @ w1
            del hidden
        return result.view_as(x), None, None, None
