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


@dataclass(frozen=True)
class Way:
    """One way to make a step: a setup, and in how many parts the batch of a device passes."""

    setup: Setup
    parts: int = 1

    @property
    def costs(self) -> tuple[bool, int, bool, bool, int, bool]:
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


def peak(setup: Setup, *, accumulated: bool = False) -> int:
    """Return the most bytes that a training holds on its device.

    With cached embeddings that is what encoding an image takes, where it takes more than a step.
    `accumulated`: while the gradients of an earlier part of the batch are there.
    """
    step = training(setup)
    most = step.peak + step.all_gradients if accumulated else step.peak
    return max(most, encoding(setup)) if setup.cached else most


def encoding(setup: Setup) -> int:
    """Return the bytes that it takes to encode one image."""
    return prediction(replace(setup, batch_size=1)).peak


def largest_batch(setup: Setup, budget: int, *, accumulated: bool = False) -> int:
    """Return how many images can pass at once within `budget` bytes, 0 if not even one can.

    A batch takes what its largest moment does, and each moment takes the same more for every image. So what
    a batch takes is, between two others, at most on the line through them; beyond them it is on that line
    once the moment that grows fastest is the largest. Of a few images that may still be the moment when
    single ones are encoded, which hardly grows: the line goes through eight times as many. Where keeping
    inputs and activations grows faster than the line, that counts, so that what is returned fits.
    """

    def most(count: int) -> int:
        return peak(replace(setup, batch_size=count), accumulated=accumulated)

    few = card_of(setup.backbone, setup.variant).images_at_once(setup.image_size)
    if most(few) > budget:
        return next((count for count in _halves(few) if most(count) <= budget), 0)
    fits, several, many = few, 4 * few, 8 * few
    for larger in (2 * few, several, many):
        if most(larger) > budget:
            return fits + (larger - fits) * (budget - most(fits)) // (most(larger) - most(fits))
        fits = larger
    one, other = (training(replace(setup, batch_size=count)) for count in (several, many))
    left = budget - other.peak - (other.all_gradients if accumulated else 0)
    growth = max(other.peak - one.peak, other.inputs + other.activations - one.inputs - one.activations)
    return min(_MOST, many + (many - several) * left // growth)


def _halves(count: int) -> Iterator[int]:
    while count > 1:
        count //= 2
        yield count


def setups_of(
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


def best_way(setups: Sequence[Setup], budget: int, *, accumulated: bool = False) -> Way | None:
    """Return how to pass the batch of `setups`, which differ in nothing else, within `budget` bytes.

    `accumulated`: whether it is a part of a batch itself. None if none of them can pass a single image.
    """
    found = []
    for setup in setups:
        whole = peak(setup, accumulated=accumulated) <= budget
        largest = setup.batch_size if whole else largest_batch(setup, budget, accumulated=True)
        if largest:
            parts = -(-setup.batch_size // largest)
            found.append(Way(replace(setup, batch_size=-(-setup.batch_size // parts)), parts))
    return min(found, key=lambda way: way.costs, default=None)
