"""How many bytes embeddings take, and how many there are for them. Loads no torch."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from samfit.backbones.card import BackboneCard
from samfit.backbones.download import cache_folder
from samfit.settings import Augmentation, TrainSettings

Numbers = Literal["32", "bf16", "16"]
"""Type of the numbers that are kept: float32, bfloat16 or float16."""
_BYTES: dict[Numbers, int] = {"32": 4, "bf16": 2, "16": 2}
_VIEWS: dict[Augmentation, int] = {"none": 1, "flips": 8}
"""In how many ways an augmentation shows an image; `affine` shows it differently each time."""


def embeddings_folder() -> Path:
    """Return where embeddings are kept on disk."""
    return cache_folder() / "embeddings"


def numbers_of(settings: TrainSettings) -> Numbers:
    """Return what embeddings are kept in: as the encoder gives them, unless `cache_half`."""
    return "16" if settings.cache_half else settings.precision


def embedding_bytes(card: BackboneCard, image_size: int, numbers: Numbers) -> int:
    """Return the bytes of the embedding of one image in one view."""
    return (image_size // card.patch) ** 2 * card.embedding_width * _BYTES[numbers]


def cache_bytes(
    card: BackboneCard,
    *,
    image_size: int,
    numbers: Numbers,
    augment: Augmentation,
    epochs: int,
    training: int,
    validation: int,
) -> int:
    """Return the most bytes that the embeddings of a run take, for so many training and validation images.

    A training image is shown once an epoch, in one of its views; a validation image always in the same.
    What a run takes in truth is a little less where a view is drawn twice. `augment` is not `affine`.
    """
    images = training * min(_VIEWS[augment], epochs) + validation
    return images * embedding_bytes(card, image_size, numbers)


def free_memory() -> int:
    """Return how many bytes of memory can still be had, or 0 where the system does not say (only Linux does).

    That is what the machine has, or what is left of the share of this process's control group, as
    containers and job queues set it.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    machine = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    return max(0, min([machine, *_left_in_groups(groups)]))


_CONTROL = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}
"""Controller, as it stands in /proc/self/cgroup (none in version 2), to its folder and the files in it."""


def _left_in_groups(lines: list[str]) -> Iterator[int]:
    """Yield what is left of the limit of every control group that this process is in, from its own upwards.

    The cache of files that a group has read counts as used there, but gives way.
    """
    for line in lines:
        _, controller, name = line.split(":", 2)
        if controller not in _CONTROL:
            continue
        root, limit, used, gives_way = _CONTROL[controller]
        own = Path(root) / name.lstrip("/")
        for folder in (own, *own.parents):
            try:
                statistics = dict(pair.split() for pair in (folder / "memory.stat").read_text().splitlines())
                yield (
                    int((folder / limit).read_text())
                    - int((folder / used).read_text())
                    + int(statistics.get(gives_way, 0))
                )
            except (OSError, ValueError):  # there is no such group here, or its limit is "max"
                continue


def free_disk(folder: Path) -> int:
    """Return how many bytes can still be written into a folder that need not be there yet; 0 if none may."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK) else 0


def held_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder that need not be there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # a temporary file of another process
                continue
    return total
