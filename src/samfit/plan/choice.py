"""What fits: the largest batch of a setup, and which settings to change when a batch does not fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from samfit.backbones import card_of
from samfit.methods import row_of
from samfit.options import BlockOptions
from samfit.plan.remembered import prediction, training
from samfit.plan.setup import Setup
from samfit.settings import Precision

ALLOWANCE = 700 * 10**6
"""Bytes left free for what no estimate holds: CUDA's context and libraries, or Python and torch on a CPU."""
_MOST = 1024
"""No batch is larger."""


Costs = tuple[bool, int, bool, bool, int, bool]
"""What a way to make a step gives up; see `Way.costs`."""


@dataclass(frozen=True)
class Way:
    """One way to make a step: a setup, and in how many parts the batch of a device passes."""

    setup: Setup
    parts: int = 1

    @property
    def costs(self) -> Costs:
        """What is given up, the worst first: the smaller, the better.

        Training fewer blocks is another method, batch statistics over a part of a batch are others, bfloat16
        rounds, checkpointing takes time, parts a little of it, and a cache space.
        """
        fewer, rounds = _late_blocks(self.setup) is not None, self.setup.precision == "bf16"
        statistics = self.parts if row_of(self.setup.method).batch_statistics else 1
        return fewer, statistics, rounds, self.setup.checkpointing, self.parts, self.setup.cached

    @property
    def given_up(self) -> tuple[str, ...]:
        """What `costs` says, in words, the worst first."""
        fewer, statistics, rounds, again, parts, cached = self.costs
        costs = {
            f"only the last {_late_blocks(self.setup)} blocks are adapted": fewer,
            f"batch statistics over a part of the batch (of {parts})": statistics > 1,
            "rounding to bfloat16": rounds,
            "time, to compute parts of the model twice": again,
            f"a batch passes in {parts} parts": parts > statistics,
            "space for embeddings, and affine augmentation": cached,
        }
        return tuple(words for words, holds in costs.items() if holds)


@dataclass(frozen=True)
class Offer:
    """A setup that fits, and how far it goes."""

    setup: Setup
    largest_batch: int
    """Images that can pass at once."""


def peak(setup: Setup) -> int:
    """Return the most bytes that a training holds on its device.

    With cached embeddings that is what encoding an image takes, where it takes more than a step.
    """
    step = training(setup).peak
    return max(step, encoding(setup)) if setup.cached else step


def encoding(setup: Setup) -> int:
    """Return the bytes that it takes to encode one image."""
    return prediction(replace(setup, batch_size=1)).peak


def largest_batch(setup: Setup, budget: int) -> int:
    """Return how many images can pass at once within `budget` bytes, 0 if not even one can.

    Beyond the few small images that pass the encoder together, each image adds the same: the peaks of two
    batches give those of all others.
    """
    few = card_of(setup.backbone, setup.variant).images_at_once(setup.image_size)
    one, two = (peak(replace(setup, batch_size=count)) for count in (few, 2 * few))
    if one > budget:
        fitting = (count for count in _halves(few) if peak(replace(setup, batch_size=count)) <= budget)
        return next(fitting, 0)
    return min(_MOST, int(few * (1 + (budget - one) / (two - one)))) if two > one else _MOST


def _halves(count: int) -> Iterator[int]:
    while count > 1:
        count //= 2
        yield count


def ways(
    asked: Setup,
    *,
    precisions: Sequence[Precision],
    checkpointing: Sequence[bool] = (False, True),
    cached: Sequence[bool] = (False, True),
) -> list[Setup]:
    """Return a setup for every combination of these choices, best first."""
    setups = [
        replace(asked, precision=precision, checkpointing=again, cached=kept)
        for precision in precisions
        for again in checkpointing
        for kept in cached
    ]
    return sorted(setups, key=lambda setup: Way(setup).costs)


def offers(setups: Sequence[Setup], budget: int) -> list[Offer]:
    """Return those of the setups that fit within `budget` bytes, best first.

    Where none does, the leanest of them with half the encoder's blocks adapted, or a quarter, … if the method
    can be told so.
    """
    found = [Offer(setup, largest_batch(setup, budget)) for setup in setups]
    fitting = [offer for offer in found if offer.largest_batch]
    return fitting or list(_with_fewer_blocks(setups[-1], budget))


def _with_fewer_blocks(setup: Setup, budget: int) -> Iterator[Offer]:
    if not issubclass(row_of(setup.method).options, BlockOptions) or _late_blocks(setup) is not None:
        return
    for late in _halves(card_of(setup.backbone, setup.variant).depth):
        fewer = replace(setup, options=tuple(sorted({**dict(setup.options), "late_blocks": late}.items())))
        largest = largest_batch(fewer, budget)
        if largest:
            yield Offer(fewer, largest)
            return


def _late_blocks(setup: Setup) -> int | None:
    return dict(setup.options).get("late_blocks")


def best_way(setups: Sequence[Setup], budget: int) -> Way | None:
    """Return how to pass the batch of `setups`, which differ in nothing else, within `budget` bytes.

    None if none of them can pass a single image.
    """
    found = []
    for setup in setups:
        largest = largest_batch(setup, budget)
        if largest:
            found.append(Way(setup, -(-setup.batch_size // largest)))
    for way in sorted(found, key=lambda way: way.costs):
        part = replace(way.setup, batch_size=-(-way.setup.batch_size // way.parts))
        if peak(part) <= budget:
            return Way(part, way.parts)
    return None
