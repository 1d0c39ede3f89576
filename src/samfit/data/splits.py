"""Which training images are held back to choose the best epoch."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from samfit.errors import DataError
from samfit.types import Sample


def hold_out(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return (training, validation) samples, each sorted by id; test samples are in neither.

    A source with a validation split of its own keeps it, and nothing is held back. Otherwise `fraction` of
    the training images, at least one and never all, is held back: those whose hash of (seed, id) is
    smallest, so that the order of files has no influence and a new image moves few others.

    Images of one group stay together: in the order of the hashes of (seed, group), each group is held back
    that still fits into the fraction, and the smallest one if none does.

    Raises `DataError` as `require_trainable` does.
    """
    require_trainable(samples)
    train, own = _of_split(samples, "train"), _of_split(samples, "validation")
    if own:
        return train, own
    parts = _parts(train)
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    parts.sort(key=lambda part: _draw(seed, part[0].group or part[0].id))
    held = {sample.id for sample in _first_that_fit(parts, count)}
    return (
        [sample for sample in train if sample.id not in held],
        [sample for sample in train if sample.id in held],
    )


def held_apart(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[Sample, ...]:
    """Return the samples in their order, those that `hold_out` holds back as of the split `validation`.

    So it can be seen what lies on both sides. Samples that cannot be divided stay as they are.
    """
    held = set()
    with suppress(DataError):
        held = {sample.image for sample in hold_out(samples, fraction, seed)[1]}
    return tuple(replace(one, split="validation") if one.image in held else one for one in samples)


def require_trainable(samples: Sequence[Sample]) -> None:
    """Raise `DataError` if there are too few training images, or groups of them, to train and to validate."""
    train, own = _of_split(samples, "train"), _of_split(samples, "validation")
    needed = 1 if own else 2
    if len(train) < needed:
        reason = "to train on" if own else "one to train on and one to validate with"
        raise DataError(f"the data set has {len(train)} training images; at least {needed} needed: {reason}")
    if not own and len(_parts(train)) < 2:
        raise DataError(
            f"all {len(train)} training images are of the group '{train[0].group}': none can be held back to "
            "validate with; take --group away, or give the data set a validation split"
        )


def _of_split(samples: Iterable[Sample], split: str) -> list[Sample]:
    return sorted((sample for sample in samples if sample.split == split), key=lambda sample: sample.id)


def _parts(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Return what stays together: the images of each group, and each image without a group by itself."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    alone = []
    for sample in samples:
        if sample.group is None:
            alone.append([sample])
        else:
            groups[sample.group].append(sample)
    return alone + list(groups.values())


def _first_that_fit(parts: Sequence[list[Sample]], count: int) -> list[Sample]:
    held: list[Sample] = []
    for part in parts:
        if len(held) + len(part) <= count:
            held += part
    return held or min(parts, key=len)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
