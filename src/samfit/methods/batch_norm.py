"""Batch normalisation whose statistics are those of the whole batch, over all processes."""

import torch
from torch import Tensor, nn

from samfit import processes


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce by sum. Every process's loss depends on the sum, so its gradients are summed too."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return processes.total(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return processes.total(gradient)


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum of what every process passes; differentiable."""
    return _SumOverProcesses.apply(values) if processes.several() else values


def counted_images(images: Tensor, weight: Tensor | None) -> Tensor:
    """Return (B,) in float64: 1 for images (B, …) that count in batch statistics, 0 for others.

    An image of weight 0 only keeps a process busy, so that in one process all of them count.
    """
    if weight is None or not processes.several():
        return images.new_ones(len(images), dtype=torch.float64)
    return (weight > 0).double()


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of all processes in training, on any device.

    torch's SyncBatchNorm works on GPUs only and counts images that merely keep a process busy.
    """

    def forward(self, input: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalise (B, C, H, W). `weight`: (B,), images of weight 0 are left out of the statistics."""
        if not self.training or not processes.several():
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, self.weight.dtype))  # bf16 cannot hold such sums
        counted = counted_images(values, weight).to(values.dtype).reshape(-1, 1, 1, 1)
        pixels = counted.sum() * values.shape[2] * values.shape[3]
        sums = sum_over_processes(torch.cat([(values * counted).sum((0, 2, 3)), pixels[None]]))
        total = sums[-1]
        mean = (sums[:-1] / total).reshape(1, -1, 1, 1)
        squares = ((values - mean).square() * counted).sum((0, 2, 3))
        variance = sum_over_processes(squares) / total
        self.update(mean.detach().flatten(), variance.detach(), total)
        scale = (self.weight / (variance + self.eps).sqrt()).reshape(1, -1, 1, 1)
        return ((values - mean) * scale + self.bias.reshape(1, -1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards the mean and biased variance (C,) of `count` values."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
