"""Operations that run out of memory, and trainings to try them on; a module of its own, to load little."""

import copy
import gc
import os
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from samfit import processes
from samfit.engine.stepping import AtOnce, NothingLess, Stepper
from samfit.losses import loss_function
from samfit.methods import METHODS
from samfit.testing import Case, small_backbone
from samfit.testing.processes import one_image
from samfit.types import Batch

WORLD = 2
MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Shortage(TorchDispatchMode):
    """Sees the operations on tensors, forward, backward and in the optimizer; some run out of memory.

    `at`: the number of one that does, from 1. `named`: a name of those that always do.
    """

    def __init__(self, at: int | None = None, named: str | None = None):
        super().__init__()
        self.at, self.named = at, named
        self.seen: list[Any] = []

    @property
    def names(self) -> list[str]:
        """Names of the operations that were seen, in order."""
        return [operation.name() for operation in self.seen]

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if operation.namespace == "aten":  # the others are marks for the profiler, and exchanges
            self.seen.append(operation)
            if len(self.seen) == self.at or (self.named is not None and operation.name() == self.named):
                error = torch.OutOfMemoryError(MESSAGE)
                raise error  # which this frame refers to, so that only the collector can free them
        return operation(*arguments, **named or {})


def measures_from(first: AtOnce) -> list[AtOnce]:
    """Return all that is tried, one after the other."""
    measures = [first]
    with suppress(NothingLess):
        while True:
            measures.append(measures[-1].less())
    return measures


class Trained:
    """A stepper some steps after its start; at 32 px a step takes a fiftieth of a second.

    `rank`: of a process that has one of the two images, or None for both images.
    """

    def __init__(self, method: str, steps: int, rank: int | None = None, image_size: int = 32):
        case = Case(METHODS[method], partial(small_backbone, "sam-tiny", image_size=image_size))
        self.batch: Batch = case.batch if rank is None else one_image(case.batch, rank)
        model = case.attached().train()
        self.stepper = Stepper(
            model,
            torch.optim.AdamW(model.trained().values(), lr=1e-3, fused=True),
            loss_function("bce-iou"),
            device=torch.device("cpu"),
            images=2,
            autocast=nullcontext(),
        )
        self.measures = measures_from(self.stepper.at_once)
        for _ in range(steps):
            self.step()
        self._model = copy.deepcopy(model.state_dict())
        self._optimizer = copy.deepcopy(self.stepper.optimizer.state_dict())

    def step(self) -> dict[str, float]:
        """Take a step."""
        return self.stepper.take([self.batch], 7, "step 3 of epoch 1")

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything that the next step depends on, by name."""
        state = {name: tensor.detach().clone() for name, tensor in self.stepper.model.state_dict().items()}
        for number, moments in self.stepper.optimizer.state_dict()["state"].items():
            state |= {f"{name} of {number}": tensor.clone() for name, tensor in moments.items()}
        return state

    def taken(self, shortages: int, during: Shortage | None = None) -> dict[str, Tensor]:
        """Take the step from the start, after so many shortages; return all that came of it."""
        self.go_back(shortages)
        with during or nullcontext():
            losses = self.step()
        values = {f"loss {name}": torch.tensor(value) for name, value in losses.items()}
        return values | {"random state": torch.get_rng_state()} | self.state()

    def go_back(self, shortages: int) -> None:
        """Be as at the start, after so many shortages."""
        self.stepper.model.load_state_dict(self._model)
        self.stepper.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        self.stepper.at_once = self.measures[shortages]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare to the last bit."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def run_out_in_turn(rank: int, folder: Path, failures: int) -> None:
    """Be one of two processes: each runs out at operations spread over a step, and both repeat it."""
    dist.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    processes._BUCKET_BYTES = 2**16  # several exchanges of gradients
    exchange = processes.anywhere

    def unseen(*arguments: Any) -> bool:
        with _disable_current_modes():  # a flag is no operation of the step
            return exchange(*arguments)

    processes.anywhere = unseen
    trained = Trained("cad", steps=1, rank=rank)
    gc.collect()
    gc.freeze()  # the collector, which runs after every shortage, need not look at torch's own objects
    expected = {shortages: trained.taken(shortages) for shortages in (0, 1)}
    trained.taken(0, counted := Shortage())
    for failing in range(WORLD):
        for number in torch.linspace(1, len(counted.seen), failures).long().tolist():
            found = trained.taken(0, Shortage(number) if rank == failing else None)
            shortages = trained.stepper.at_once.shortages
            assert_same(found, expected[shortages])
            assert processes.all_alike(str(shortages)), "processes do not go on alike"
    trained.go_back(-1)
    before = trained.state()
    with Shortage(named="aten::convolution" if rank == 1 else None):
        try:
            trained.step()
        except NothingLess:
            assert_same(trained.state(), before)
        else:
            raise AssertionError("a step without memory was taken")
    assert processes.anywhere(rank == 1, trained.stepper.device)
    assert not processes.anywhere(False, trained.stepper.device)
    assert processes.most(3 - rank, trained.stepper.device) == 3
    assert processes.gathered(f"rank {rank}") == ["rank 0", "rank 1"]
    assert processes.all_alike("the same")
    assert not processes.all_alike(f"rank {rank}")
    torch.save(trained.state(), folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads do not always end when the group is taken down, and would hold the process
