"""Two processes that train together, against one."""

import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from samfit.processes import add_up_gradients
from samfit.testing.case import Case, expect, gradients, loss_of
from samfit.types import Batch, Prompts

_WORLD = 2
_NEEDED = ("samfit.backbones.", "samfit.methods.", "samfit.testing.")


def check_two_processes_equal_one(case: Case) -> None:
    """Check that two processes with an image each get the gradients and buffers of one with both.

    Every tensor agrees within 1e-5 of its largest value, or of a hundredth of the largest gradient: some hold
    rounding noise alone.
    """
    model = case.stepped()
    expected = gradients(model, loss_of(model, case.batch))
    buffers = _buffers(model)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for rank, found in enumerate(_in_processes(case)):
        for name, tensor in (expected | buffers).items():
            scale = max(float(tensor.abs().max()), 1e-2 * largest)
            away = float((found[name] - tensor).abs().max()) / scale
            expect(
                away <= 1e-5,
                f"{name}: process {rank} of {_WORLD} is off by {away:.1e} of its size, expected what one "
                "process gets from the whole batch",
            )


def _in_processes(case: Case) -> list[dict[str, Tensor]]:
    """Return what `_share` gave in each process.

    Where the system can, they are forked from a process that has loaded what this one has, and done nothing.
    """
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        method = "forkserver"
        multiprocessing.set_forkserver_preload([name for name in sys.modules if name.startswith(_NEEDED)])
    with TemporaryDirectory() as folder:
        without_tensors = replace(case)  # drops what is cached: tensors of one seed are the same everywhere
        start_processes(_share, (without_tensors, Path(folder)), nprocs=_WORLD, start_method=method)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(_WORLD)]


def _share(rank: int, case: Case, folder: Path) -> None:
    """Write what one process gets from its image: gradients summed over the processes, and buffers."""
    model = case.stepped()
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=_WORLD)
    loss_of(model, one_image(case.batch, rank)).backward()
    add_up_gradients(model.trained().values())
    found = {name: parameter.grad for name, parameter in model.trained().items()}
    torch.save(found | _buffers(model), folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads do not always end when the group is taken down, and would hold the process


def one_image(batch: Batch, index: int) -> Batch:
    """Return one image of a batch; its share stays what it is in the whole."""
    prompts = Prompts(batch.prompts.points[[index]], batch.prompts.labels[[index]], batch.prompts.has_box)
    return Batch(
        frame=None if batch.frame is None else batch.frame[[index]],
        prompts=prompts,
        extra=None if batch.extra is None else batch.extra[[index]],
        target=batch.target[[index]],
        valid=batch.valid[[index]],
        weight=batch.weight[[index]],
    )


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.double() for name, buffer in model.named_buffers()}
