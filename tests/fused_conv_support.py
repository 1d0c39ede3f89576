"""Two processes that run one batch through the convolutional adapter; a module of its own, to load little."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from samfit.methods.cad import ConvAdapter

WORLD = 2
COUNTS = {"even": (2, 2), "uneven": (3, 1), "nothing of its own": (2, 0)}
"""How many images each process has; 0 is one image of weight 0, which must leave no trace."""


def filled_adapter(width: int, grid: int) -> ConvAdapter:
    """Return an adapter in float64 with every parameter and buffer away from where training begins."""
    generator = torch.Generator().manual_seed(width)
    adapter = ConvAdapter(width, grid).double()
    with torch.no_grad():
        for tensor in adapter.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.2)
        for block in (adapter.conv_block1, adapter.conv_block2, adapter.conv_block3):
            assert block.bn.running_var is not None
            block.bn.weight.add_(1)
            block.bn.running_var.add_(2)
    return adapter


def share_of(rank: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a process's images, the gradient of their features, and the weights of the images."""
    generator = torch.Generator().manual_seed(rank)
    images = torch.rand(max(count, 1), 6, 32, 24, generator=generator, dtype=torch.float64) * 255
    gradient = torch.randn(max(count, 1), 4, 3, 3, generator=generator, dtype=torch.float64)
    weight = torch.full((len(images),), 0.25 if count else 0.0)
    return images, gradient if count else torch.zeros_like(gradient), weight


def measured(images: Tensor, gradient: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
    """Return the features, the gradients and the running statistics that come of one step."""
    adapter = filled_adapter(4, 3).train()
    features = adapter.features(images, weight)
    features.backward(gradient)
    found = {f"{name}.grad": parameter.grad for name, parameter in adapter.named_parameters()}
    return found | {"features": features.detach()} | dict(adapter.named_buffers())


def run(rank: int, folder: str) -> None:
    """Be one of the processes: write what comes of every case into `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {name: measured(*share_of(rank, counts[rank])) for name, counts in COUNTS.items()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
