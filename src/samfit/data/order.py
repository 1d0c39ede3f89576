"""In which order training images pass: a function of seed and epoch, cut into steps and shares.

Nothing here remembers anything, so a resumed run and a run on several devices see what they must.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One image in one step."""

    epoch: int
    index: int
    """Position in the list of training samples."""
    share: float
    """Share of the image in the loss of its step; 0 for an image that only keeps a process busy."""


@dataclass(frozen=True)
class StepOrder:
    """Cuts an epoch of `count` images into steps of `batch_size`, each in `accumulate` parts.

    The last step of an epoch may be smaller; no image is dropped or repeated. All processes together see one
    batch a step: process `rank` of `world` takes every `world`-th image of each part.
    """

    count: int
    batch_size: int
    accumulate: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Number of optimizer steps of one epoch."""
        return -(-self.count // self.batch_size)

    @property
    def most_at_once(self) -> int:
        """The most images that any process has in one part."""
        return -(-min(self._part_size, self.count) // self.world)

    @property
    def _part_size(self) -> int:
        return -(-self.batch_size // self.accumulate)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[list[Draw]]]:
        """Yield this process's draws of every step of an epoch from step `start` on, a list for each part."""
        permutation = np.random.default_rng((self.seed, epoch)).permutation(self.count).tolist()
        for number in range(start, self.steps):
            yield self._cut(epoch, number, permutation)

    def _cut(self, epoch: int, number: int, permutation: list[int]) -> list[list[Draw]]:
        images = permutation[number * self.batch_size : (number + 1) * self.batch_size]
        share = 1 / len(images)
        parts = []
        for first in range(0, len(images), self._part_size):
            part = images[first : first + self._part_size]
            own = [Draw(epoch, index, share) for index in part[self.rank :: self.world]]
            parts.append(own or [Draw(epoch, part[0], 0.0)])
        return parts
