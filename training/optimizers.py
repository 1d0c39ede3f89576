"""Muon as torch has it, for all matrices of one shape at once."""

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, up to rounding, in fewer kernels.

    Torch's own takes a matrix at a time, and needs its learning rate as a plain number, so that no CUDA graph
    can hold it. Every parameter must have a gradient.
    """

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step. The learning rate of the group may be a tensor."""
        (group,) = self.param_groups
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in group["params"]:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        for shape, matrices in by_shape.items():
            gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
            state = self.state[matrices[0]]
            if "momenta" not in state:
                state["momenta"] = torch.zeros_like(gradients)
            momenta = state["momenta"].lerp_(gradients, 1 - group["momentum"])
            ahead = gradients.lerp(momenta, group["momentum"])
            moved = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
            moved = moved * (0.2 * max(shape) ** 0.5 * group["lr"])
            for matrix, step in zip(matrices, moved, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step)


def orthogonal(stack: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float) -> Tensor:
    """Return matrices (K, M, N) with their singular values brought near to 1, in bfloat16.

    By Newton-Schulz iterations x ← a x + (b x xᵀ + c (x xᵀ)²) x, as in Muon (arXiv 2502.16982, section 2.1).
    """
    first, second, third = coefficients
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), x, beta=first)
    return x.mT if tall else x
