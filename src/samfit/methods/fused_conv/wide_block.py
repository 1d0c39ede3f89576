"""Blocks 2 and 3, whose input has E channels: one array of its size at a time."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from samfit.backbones.chunks import slices
from samfit.methods.batch_norm import sum_over_processes
from samfit.methods.fused_conv.parts import (
    DILATION,
    SLOPE,
    Block,
    GridPooling,
    Normalisation,
    Part,
    Rows,
    Settings,
    Statistics,
    along_channels,
    behind_activation,
    behind_halving,
    gradient_at_bias,
    halved,
    parts,
    through_statistics,
)

HALO = 2 * DILATION
"""How many rows more the convolution of a part reads than it makes, half of them above."""


class WideBlock:
    """From p, the output of the block before, to the output of this one."""

    def __init__(
        self,
        rows: Rows,
        shape: torch.Size,
        block: Block,
        counted: Tensor,
        settings: Settings,
        images: int | None = None,
    ):
        """Take what makes parts of p, the shape (B, E, h, w) of p, and which images count (B,).

        `images`: of how many images y is held at a time, None for all. With fewer, y is made once more.
        """
        self.rows = rows
        self.shape = shape
        self.block = block
        self.weight = block.weight.to(settings.dtype)
        self.bias = block.bias.to(settings.dtype)
        self.counted = counted
        self.settings = settings
        self.images = images or shape[0]

    def run(self, fixed: Statistics | None, pooled: Tensor) -> tuple[Tensor, Statistics]:
        """Return the output (B, E, h/2, w/2) and the statistics; add p, pooled, to `pooled` (B, E, g, g)."""
        y: Rows = self._convolved
        if fixed:
            return self._output(y, fixed, pooled), fixed
        if self.images >= self.shape[0]:
            whole = self.weight.new_empty(self.shape)
            self._convolve(whole)
            y = partial(Part.of, x=whole)
        statistics = self._statistics(y)
        return self._output(y, statistics, pooled), statistics

    def gradients(
        self,
        at_out: Tensor,
        at_pooled: Tensor,
        statistics: Statistics,
        take: Callable[[slice, Tensor], None],
    ) -> Block:
        """Turn the gradient at the output (B, E, h/2, w/2) into those at p and in the block.

        `at_pooled`: the gradient at the pooled images (B, E, g, g), to which p adds too. `take` is given
        which images, and the gradient at their p (b, E, h, w), which is overwritten afterwards.
        """
        _, width, height, length = self.shape
        normalisation = Normalisation.of(self.block, statistics, self.settings.eps)
        groups = [(images, self._of(images)) for images in slices(self.shape[0], self.images)]
        held = self.weight.new_empty(len(groups[0][1].counted), width, HALO + height, length)
        sums = []
        for images, group in groups:
            y = held[: len(group.counted), :, HALO:]
            group._convolve(y)
            sums.append(group._sums(y, at_out[images], normalisation))
        at_beta, at_gamma = (torch.stack(shares).sum(0) for shares in zip(*sums, strict=True))
        means = through_statistics(at_beta, at_gamma, statistics.pixels)
        at_weight = torch.zeros_like(self.weight, dtype=self.settings.exact)
        pooling = GridPooling(self.shape[2:], at_pooled)
        for images, group in groups:
            rows = held[: len(group.counted)]
            if len(groups) > 1:  # others have been in its place
                group._convolve(rows[:, :, HALO:])
            at_weight += group._behind_convolution(rows, at_out[images], normalisation, means)
            at_p = rows[:, :, DILATION:-DILATION]
            for part in group._parts():
                behind = behind_halving(part.halved().of(at_out[images]))
                part.of(at_p).add_(behind).add_(pooling.behind(at_pooled[images], part))
            take(images, at_p)
        at_bias = gradient_at_bias(at_beta, normalisation.scale, statistics.pixels)
        return Block(at_weight, at_bias, at_gamma, at_beta)

    def _of(self, images: slice) -> "WideBlock":
        """Return the block for some of its images."""
        whole = Part(images, 0, self.shape[2])
        shape = torch.Size((images.stop - images.start, *self.shape[1:]))

        def rows(part: Part) -> Tensor:
            return self.rows(whole.inner(part))

        return WideBlock(rows, shape, self.block, self.counted[images], self.settings)

    def _convolve(self, y: Tensor) -> None:
        """Fill y (B, E, h, w)."""
        for part in self._parts():
            part.of(y).copy_(self._convolved(part))

    def _convolved(self, part: Part) -> Tensor:
        """Return a part of y (b, E, rows, w)."""
        return F.conv2d(self._around(part), self.weight, self.bias, dilation=DILATION)

    def _statistics(self, y: Rows) -> Statistics:
        """Return the statistics of y, from what gives parts of it, over all processes.

        With a part's mean m and variance v, the variance of all is the mean of v + (m - mean of all)².
        """
        weights, means, variances = [], [], []
        for part in self._parts():
            values = y(part).to(self.settings.exact)
            mean = values.mean((2, 3))
            weights.append(self.counted[part.images] * values[0, 0].numel())
            means.append(mean.double())
            variances.append((values - mean[..., None, None]).square().mean((2, 3)).double())
        weight, m, v = torch.cat(weights)[:, None], torch.cat(means), torch.cat(variances)
        count = sum_over_processes(weight.sum())
        mean = sum_over_processes((weight * m).sum(0)) / count
        variance = sum_over_processes((weight * (v + (m - mean).square())).sum(0)) / count
        return Statistics(mean, variance, count)

    def _output(self, y: Rows, statistics: Statistics, pooled: Tensor) -> Tensor:
        """Return the output (B, E, h/2, w/2) from what gives parts of y; add p, pooled, to `pooled`."""
        exact = self.settings.exact
        normalisation = Normalisation.of(self.block, statistics, self.settings.eps)
        scale, shift = (along_channels(values, exact) for values in normalisation[2:])
        pooling = GridPooling(self.shape[2:], pooled)
        batch, width, height, length = self.shape
        out = self.weight.new_empty(batch, width, height // 2, length // 2)
        for part in self._parts():
            p = self.rows(part).to(exact)
            pooled[part.images] += pooling.share(p, part)
            z = torch.addcmul(shift, y(part).to(exact), scale)
            part.halved().of(out).copy_(halved(F.leaky_relu_(z, SLOPE).add_(p)))
        return out

    def _sums(self, y: Tensor, at_out: Tensor, normalisation: Normalisation) -> tuple[Tensor, Tensor]:
        """Return Σ dz and Σ dz ŷ (E,), the gradients at β and γ, in float64."""
        at_beta, at_gamma = torch.zeros_like(normalisation.mean), torch.zeros_like(normalisation.mean)
        for part in self._parts():
            normal, at_z = self._behind_output(part, y, at_out, normalisation)
            at_beta += at_z.sum((0, 2, 3))
            at_gamma += at_z.mul_(normal).sum((0, 2, 3))
        return at_beta, at_gamma

    def _behind_output(
        self, part: Part, y: Tensor, at_out: Tensor, normalisation: Normalisation
    ) -> tuple[Tensor, Tensor]:
        """Return ŷ and dz of a part (b, E, rows, w)."""
        exact = self.settings.exact
        mean, sigma, scale, shift = (along_channels(values, exact) for values in normalisation)
        values = part.of(y).to(exact)
        gradient = behind_halving(part.halved().of(at_out).to(exact))
        at_z = behind_activation(gradient, torch.addcmul(shift, values, scale))
        return (values - mean).div_(sigma), at_z

    def _behind_convolution(
        self, rows: Tensor, at_out: Tensor, normalisation: Normalisation, means: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Put the gradient that comes to p through the convolution in y's place; return that at the weight.

        `rows` (B, E, 4 + h, w) begins with four rows of nothing: row r of y is its row r + 4, and row r of
        the gradient becomes its row r + 2. The convolution of a part reads two rows above and below it: their
        gradient covers y up to the part's end, and nothing that is still to be read.
        """
        exact, dtype = self.settings.exact, self.settings.dtype
        y = rows[:, :, HALO:]
        scale, s1, s2 = (along_channels(values, exact) for values in (normalisation.scale, *means))
        counted = self.counted.to(exact)[:, None, None, None]
        at_weight = torch.zeros_like(self.weight, dtype=exact)
        rows[:, :, :HALO] = 0
        for part in self._parts():
            normal, at_z = self._behind_output(part, y, at_out, normalisation)
            at_y = at_z.sub_(normal.mul_(s2).add_(s1).mul_(counted[part.images])).mul_(scale).to(dtype)
            p = self._around(part)
            at_weight += conv2d_weight(p, self.weight.shape, at_y, dilation=DILATION)
            at_p = conv2d_input(p.shape, self.weight, at_y, dilation=DILATION)[..., DILATION:-DILATION]
            rows[part.images, :, part.first : part.first + HALO] += at_p[:, :, :HALO]
            rows[part.images, :, part.first + HALO : part.last + HALO] = at_p[:, :, HALO:]
        return at_weight

    def _parts(self) -> Iterator[Part]:
        """Cut p into parts of whole 2×2 cells."""
        return parts(self.shape, self.settings.pixels, multiple=2)

    def _around(self, part: Part) -> Tensor:
        """Return a part of p with what the convolution sees around it, zero outside of p."""
        above = max(DILATION - part.first, 0)
        below = max(part.last + DILATION - self.shape[2], 0)
        inside = Part(part.images, part.first - DILATION + above, part.last + DILATION - below)
        return F.pad(self.rows(inside).to(self.settings.dtype), (DILATION, DILATION, above, below))
