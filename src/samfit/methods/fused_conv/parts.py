"""What both kinds of blocks share: parts of few rows, normalisation, activation and pooling in them.

Shapes here and beside: B images, b of them in a part, E channels, g the grid, (h, w) the size of what is cut.
Gradients are named by what they belong to: `at_z` is the derivative of the loss at z.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from samfit.backbones.chunks import is_first_enough
from samfit.methods.batch_norm import sum_over_processes

SLOPE = 0.1
"""Of the leaky ReLU below zero."""

DILATION = 2
"""Of the 3×3 convolutions, and so the rows and columns that they see beyond each edge."""


class Settings(NamedTuple):
    """What is computed how."""

    eps: float
    """Added to variances."""
    dtype: torch.dtype
    """Of images with E channels and of their convolutions; sums are taken in float32 at least."""
    pixels: int
    """How many pixels with E channels are worked on at a time."""
    images: int | None
    """Of how many images block 2 holds an array of its size at a time; None for all."""

    @property
    def exact(self) -> torch.dtype:
        """What is added up in."""
        return torch.promote_types(self.dtype, torch.float32)


class Block(NamedTuple):
    """Weight (E, E, 3, 3) and bias (E,) of a convolution, weight γ and bias β (E,) of a normalisation.

    Or the gradients of these.
    """

    weight: Tensor
    bias: Tensor
    gamma: Tensor
    beta: Tensor


class Statistics(NamedTuple):
    """Mean and biased variance (E,) that a convolution's output y is normalised with, in float64.

    `pixels`: over how many of all processes they were taken, (); infinite where they are fixed, so that none
    has a share in them.
    """

    mean: Tensor
    variance: Tensor
    pixels: Tensor


class Normalisation(NamedTuple):
    """ŷ = (y - mean) / σ with σ² = variance + eps, and z = γ ŷ + β = scale y + shift; all (E,) in float64."""

    mean: Tensor
    sigma: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, block: Block, statistics: Statistics, eps: float) -> "Normalisation":
        """Return what a block does with these statistics."""
        sigma = (statistics.variance + eps).sqrt()
        scale = block.gamma.double() / sigma
        return cls(statistics.mean, sigma, scale, block.beta.double() - statistics.mean * scale)


class Part(NamedTuple):
    """Some rows of some images of (B, E, h, w)."""

    images: slice
    first: int
    last: int

    def of(self, x: Tensor) -> Tensor:
        """Return a view of this part."""
        return x[self.images, :, self.first : self.last]

    def halved(self) -> "Part":
        """Return the same part of images of half the size."""
        return Part(self.images, self.first // 2, self.last // 2)

    def inner(self, part: "Part") -> "Part":
        """Return a part of this part as one of the whole."""
        images = slice(self.images.start + part.images.start, self.images.start + part.images.stop)
        return Part(images, self.first + part.first, self.first + part.last)


Rows = Callable[[Part], Tensor]
"""Gives a part of an image (B, E, h, w): (b, E, rows, w)."""


def parts(shape: torch.Size, pixels: int, multiple: int = 1) -> Iterator[Part]:
    """Cut (B, E, h, w) into parts of at most `pixels`: several whole images, or some rows of one.

    The number of rows is a multiple of `multiple`, and at least that.
    """
    count, _, height, width = shape
    together = max(1, pixels // (height * width))
    rows = max(1, pixels // (width * multiple)) * multiple
    cuts = (
        Part(slice(image, min(image + together, count)), first, min(first + rows, height))
        for image in range(0, count, together)
        for first in range(0, height, rows)
    )
    # The second one has neighbours at both sides, and is the largest.
    return islice(cuts, 2) if is_first_enough() else cuts


def through_statistics(at_beta: Tensor, at_gamma: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ dz / n and Σ dz ŷ / n (E,) over the n `pixels` of all processes, from the sums over this one.

    That is what mean and variance take off the gradient at y: dy = γ/σ (dz - Σ dz / n - ŷ Σ dz ŷ / n).
    """
    s1, s2 = sum_over_processes(torch.stack([at_beta, at_gamma])) / pixels
    return s1, s2


def gradient_at_bias(at_beta: Tensor, scale: Tensor, pixels: Tensor) -> Tensor:
    """Return the gradient at a convolution's bias (E,), which the mean of a batch takes away again."""
    return torch.where(pixels.isinf(), scale * at_beta, 0)


def along_channels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Make (E,) fit images (b, E, h, w) of a dtype."""
    return values.to(dtype)[:, None, None]


def halved(x: Tensor) -> Tensor:
    """Return the means of 2×2 cells (b, E, h/2, w/2); on a CPU ten times as fast as `avg_pool2d`."""
    rows = x[:, :, ::2] + x[:, :, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def behind_halving(gradient: Tensor) -> Tensor:
    """Turn the gradient at the means of 2×2 cells (b, E, h/2, w/2) into that at the pixels (b, E, h, w)."""
    return F.interpolate(gradient / 4, scale_factor=2, mode="nearest")


def behind_activation(gradient: Tensor, z: Tensor) -> Tensor:
    """Turn the gradient at the leaky ReLU's output into that at its input z."""
    return torch.ops.aten.leaky_relu_backward(gradient, z, SLOPE, False)


class GridPooling:
    """Adaptive average pooling of (B, E, h, w) to (B, E, g, g), a part at a time.

    It is linear, along rows and along columns: pooled = R x Cᵀ with R (g, h) and C (g, w).
    """

    def __init__(self, size: torch.Size, pooled: Tensor):
        """Pool images of a size (h, w) to the size of `pooled` (B, E, g, g)."""
        self.r, self.c = (
            F.adaptive_avg_pool1d(torch.eye(n, dtype=pooled.dtype, device=pooled.device), grid).T
            for n, grid in zip(size, pooled.shape[2:], strict=True)
        )

    def share(self, x: Tensor, part: Part) -> Tensor:
        """Return what a part (b, E, rows, w) adds to the pooled images (b, E, g, g)."""
        return self.r[:, part.first : part.last] @ (x @ self.c.T)

    def behind(self, at_pooled: Tensor, part: Part) -> Tensor:
        """Turn the gradient at the pooled images (B, E, g, g) into that at a part (b, E, rows, w)."""
        return (self.r[:, part.first : part.last].T @ at_pooled[part.images]) @ self.c
