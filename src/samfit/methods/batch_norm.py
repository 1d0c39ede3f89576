"""Batch normalisation whose statistics are those of the whole batch, over all processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce by sum. Every process's loss depends on the sum, so its gradients are summed too."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of all processes in training, on any device.

    torch's SyncBatchNorm works on GPUs only and counts images that merely keep a process busy.
    """

    def forward(self, input: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalise (B, C, H, W). `weight`: (B,), images of weight 0 are left out of the statistics."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, self.weight.dtype))  # bf16 cannot hold such sums
        counted = torch.ones_like(values[:, :1, :1, :1])
        if weight is not None:
            counted = (weight > 0).to(values.dtype).reshape(-1, 1, 1, 1)
        pixels = counted.sum() * values.shape[2] * values.shape[3]
        sums = _SumOverProcesses.apply(torch.cat([(values * counted).sum((0, 2, 3)), pixels[None]]))
        total = sums[-1]
        mean = (sums[:-1] / total).reshape(1, -1, 1, 1)
        squares = ((values - mean).square() * counted).sum((0, 2, 3))
        variance = _SumOverProcesses.apply(squares) / total
        self._update(mean.detach().flatten(), variance.detach() * total / (total - 1))
        scale = (self.weight / (variance + self.eps).sqrt()).reshape(1, -1, 1, 1)
        return ((values - mean) * scale + self.bias.reshape(1, -1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)
