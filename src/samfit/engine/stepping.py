"""Optimizer steps that a lack of memory does not stop: a step that ran out is repeated with less at once.

An attempt that failed leaves nothing behind: its gradients are dropped, batch statistics and random numbers
are those from before it, and weights move in a single operation, or not at all. So the step that follows is,
within rounding, the one that would have been taken with enough memory. There is one exception, the last that
is tried and plainly said: batch statistics of fewer images.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor

from samfit import processes
from samfit.backbones.chunks import Limits, limited
from samfit.engine.memory import LARGEST_DIVISOR, let_go, ran_out
from samfit.losses import LossFunction
from samfit.methods.adapted import AdaptedModel
from samfit.step import training_step
from samfit.types import Batch

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class NothingLess(Exception):
    """Memory ran out with the least at once that there is."""


@dataclass(frozen=True)
class AtOnce:
    """How much of a step passes at once."""

    checkpointing: bool
    """Whether backward computes again what forward could have kept (`AdaptedModel.checkpointing`)."""
    images: int
    """How many images pass encoder and decoder together at most."""
    part: int
    """How many images of a process go forward and backward before its next ones do at most; batch statistics
    are those of these."""
    divisor: int = 1
    """What the sizes of chunks inside an image are divided by."""
    shortages: int = 0
    """How often memory ran out until it came to this."""

    def less(self) -> "AtOnce":
        """Return what to try after this. Raises `NothingLess`."""
        shortages = self.shortages + 1
        if not self.checkpointing:
            return replace(self, checkpointing=True, shortages=shortages)
        if self.images > 1:
            return replace(self, images=self.images // 2, shortages=shortages)
        if self.divisor < LARGEST_DIVISOR:
            return replace(self, divisor=2 * self.divisor, shortages=shortages)
        if self.part > 1:
            return replace(self, part=self.part // 2, shortages=shortages)
        raise NothingLess

    def in_words(self) -> str:
        """Say what distinguishes this from what comes before it."""
        if self.divisor > 1:
            return f"one image at once, in chunks of 1/{self.divisor} of their size"
        return f"checkpointing and at most {_images(self.images)} at once"


def _images(count: int) -> str:
    return f"{count} image{'s' if count > 1 else ''}"


class Stepper:
    """Takes the optimizer steps of a training."""

    def __init__(
        self,
        model: AdaptedModel,
        optimizer: torch.optim.Optimizer,
        loss_function: LossFunction,
        *,
        device: torch.device,
        images: int,
        autocast: AbstractContextManager[Any],
    ):
        """Take a model that is on the device and an optimizer of its trained parameters that is `fused`.

        `images`: the most that pass together in any process. Processes must start with equal weights.
        """
        self.model, self.optimizer, self.loss_function = model, optimizer, loss_function
        self.device, self.autocast = device, autocast
        self.trained = list(model.trained().values())
        self.at_once = AtOnce(model.checkpointing, images, part=images)
        """What holds for the rest of the run, unless memory runs out."""
        self._whole_part = images

    def take(self, parts: Sequence[Batch], seed: int, name: str) -> dict[str, float]:
        """Take one step; return the parts of the loss of the whole batch, over all processes.

        `parts`: this process's share, one after the other. `seed`: of all random numbers that are drawn.
        `name`: what the step is called in messages. Raises `NothingLess` with weights and state as before,
        but for this: if the optimizer of another process alone ran out, the weights here have moved.
        """
        buffers = list(self.model.adapter.buffers())
        before: list[Tensor] = []

        def attempt() -> dict[str, float]:
            if not before:
                before.extend([buffer.clone() for buffer in buffers])
            torch.manual_seed(seed)
            return self._find_gradients(parts)

        while (losses := self._unless_memory_runs_out(attempt)) is None:
            for buffer, value in zip(buffers, before, strict=False):  # the copies themselves may have failed
                buffer.copy_(value)
            self.at_once = self.at_once.less()
            logger.warning("out of memory in %s: repeating it and going on with %s", name, self._in_words())
        self._move_weights()
        return losses

    @property
    def splits_statistics(self) -> bool:
        """Whether batch statistics are those of fewer images than the settings say."""
        return self.model.row.batch_statistics and self.at_once.part < self._whole_part

    def _in_words(self) -> str:
        """Say what passes at once."""
        words = self.at_once.in_words()
        if self.at_once.part < self._whole_part:
            words += f", in parts of at most {_images(self.at_once.part)}"
        if self.splits_statistics:
            words += "; batch statistics are those of such a part"
        return words

    def _find_gradients(self, parts: Sequence[Batch]) -> dict[str, float]:
        """Put the gradients of the whole batch into the trained parameters; return the parts of its loss."""
        sums: dict[str, Tensor] = {}
        self.model.checkpointing = self.at_once.checkpointing
        with limited(Limits(self.at_once.images, self.at_once.divisor)):
            for batch in chain.from_iterable(map(self._pieces, parts)):
                with self.autocast:
                    result = training_step(
                        self.model, self.model.backbone.frame, batch.to(self.device), self.loss_function
                    )
                result.loss.backward()
                for name, value in result.parts.items():
                    sums[name] = sums[name] + value if name in sums else value
        processes.add_up_gradients(self.trained)  # the images' shares add up to one over all processes
        values = processes.total(torch.stack(list(sums.values())))
        return dict(zip(sums, values.tolist(), strict=True))

    def _pieces(self, part: Batch) -> list[Batch]:
        """Cut a part into what goes forward and backward at once, in all processes into equally many.

        One that has fewer images repeats some of its own without a share.
        """
        if self.at_once.part >= self._whole_part:
            return [part]
        own = part.split(self.at_once.part)
        needed = -(-processes.most(len(part.weight), self.device) // self.at_once.part)
        idle = replace(own[0], weight=torch.zeros_like(own[0].weight))
        return own + [idle] * (needed - len(own))

    def _unless_memory_runs_out(self, function: Callable[[], ResultT]) -> ResultT | None:
        """Return what a function returns; None, and no gradients, if memory ran out in any process."""
        here = False
        try:
            result = function()
            processes.agree(self.device)
            return result
        except processes.AnotherRanOut:
            pass
        except Exception as error:
            if not ran_out(error):
                raise
            here = True
        self.optimizer.zero_grad(set_to_none=True)
        let_go()
        if here:
            processes.anywhere(True, self.device)
        return None

    def _move_weights(self) -> None:
        """Let the optimizer move the weights by the gradients, which are dropped then.

        Other processes have the same gradients and need no news of a repetition. Nothing of a forward or
        backward pass is left here that could be made smaller.
        """
        moved = self._weights_moved() or self._weights_moved()
        self.optimizer.zero_grad(set_to_none=True)
        if processes.anywhere(not moved, self.device):
            raise NothingLess

    def _weights_moved(self) -> bool:
        """Return whether there was memory to move the weights; otherwise they and the state are as before.

        A fused optimizer first makes state for parameters that have none and counts the step, then moves
        everything in one operation that needs no memory. What precedes that operation is undone.
        """
        state = self.optimizer.state
        known, counts = list(state), None
        try:
            if known:
                counts = torch.stack([state[parameter]["step"] for parameter in known])
            self.optimizer.step()
            return True
        except Exception as error:
            if not ran_out(error):
                raise
        for parameter in state.keys() - set(known):
            del state[parameter]
        if counts is not None:
            for parameter, count in zip(known, counts, strict=True):
                state[parameter]["step"].copy_(count)
        let_go()
        return False
