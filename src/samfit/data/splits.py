"""Which training images are held back to choose the best epoch."""

import hashlib
from collections.abc import Sequence

from samfit.errors import DataError
from samfit.types import Sample


def hold_out(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return (training, validation) samples, each sorted by id; test samples are in neither.

    A source with a validation split of its own keeps it, and nothing is held back. Otherwise `fraction` of
    the training images, at least one and never all, is held back: those whose hash of (seed, id) is
    smallest, so that the order of files has no influence and a new image moves few others.
    Raises `DataError` if there are too few training images.
    """
    train = sorted((sample for sample in samples if sample.split == "train"), key=lambda sample: sample.id)
    own = sorted((sample for sample in samples if sample.split == "validation"), key=lambda sample: sample.id)
    needed = 1 if own else 2
    if len(train) < needed:
        reason = "to train on" if own else "one to train on and one to validate with"
        raise DataError(f"the data set has {len(train)} training images; at least {needed} needed: {reason}")
    if own:
        return train, own
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    held = {sample.id for sample in sorted(train, key=lambda sample: _draw(seed, sample.id))[:count]}
    return (
        [sample for sample in train if sample.id not in held],
        [sample for sample in train if sample.id in held],
    )


def _draw(seed: int, sample_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{sample_id}".encode()).digest()
