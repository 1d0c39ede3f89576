"""Two processes that normalise one batch together; a module of its own, so that they load little else."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from samfit.methods.batch_norm import WholeBatchNorm2d

CHANNELS = 3
WORLD = 2


@dataclass(frozen=True)
class Case:
    """How many images each process has; 0 is one image of weight 0, which must leave no trace."""

    counts: tuple[int, int]
    dtype: torch.dtype = torch.float64
    mean: float = 0.0


CASES = {
    "even": Case((2, 2)),
    "uneven": Case((3, 1)),
    "nothing of its own": Case((2, 0)),
    "far from zero": Case((2, 1), mean=1000.0),
    "bf16": Case((2, 1), torch.bfloat16),
}


def made(rank: int, count: int, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return a process's input, the gradient of its output, and the weights of its images."""
    generator = torch.Generator().manual_seed(rank)
    shape = (max(count, 1), CHANNELS, 5, 4)
    images = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + case.mean
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.full((shape[0],), 0.25 if count else 0.0)
    return images.to(case.dtype), (gradient if count else torch.zeros(shape)).to(case.dtype), weight


def prepared(module: nn.BatchNorm2d, case: Case) -> nn.BatchNorm2d:
    """Give a module weights that are not the identity's; bf16 passes modules of float32, as in autocast."""
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        module.bias.copy_(torch.tensor([0.1, 0.0, -0.3]))
    return module.to(torch.float64 if case.dtype == torch.float64 else torch.float32)


def measured(module: nn.BatchNorm2d, images: Tensor, gradient: Tensor, *weight: Tensor) -> dict[str, Tensor]:
    """Run a module forth and back twice, then once in eval mode, and return all that came of it."""
    for _ in range(2):
        module.zero_grad()
        images = images.detach().requires_grad_()
        out = module(images, *weight)
        out.backward(gradient)
    assert images.grad is not None
    result = {"out": out, "images": images.grad, "eval": module.eval()(images, *weight)}
    result |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: tensor.detach() for name, tensor in result.items()} | dict(module.named_buffers())


def normalise(rank: int, folder: str) -> None:
    """Be one of the processes: pass every case and write what came of it into `folder`."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    results = {
        name: measured(prepared(WholeBatchNorm2d(CHANNELS), case), *made(rank, case.counts[rank], case))
        for name, case in CASES.items()
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
