"""The embedding cache of a run: where it lies, how it is filled, and how the run does without the encoder.

What a run will ask for is known before it starts, because its draws are functions of seed, epoch and sample:
each image is encoded once in each view that it will be shown in, and in no other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from samfit import processes
from samfit.backbones.base import Backbone
from samfit.cache.size import (
    embedding_bytes,
    embeddings_folder,
    free_disk,
    free_memory,
    held_bytes,
    numbers_of,
)
from samfit.cache.stores import InMemory, Key, OnDisk, Store
from samfit.data.order import StepOrder
from samfit.data.shown import Frames, Shown, view_of
from samfit.data.transforms import UNMOVED
from samfit.engine.memory import OneByOne, on_device
from samfit.engine.reading import reading
from samfit.errors import SettingError
from samfit.files import storage_errors
from samfit.methods.adapted import AdaptedModel
from samfit.methods.precision import autocast
from samfit.progress import track
from samfit.settings import TrainSettings, resolved
from samfit.types import Sample

_SHARE = 0.5
"""Of the free memory or disk, what a cache takes that was not asked for."""


@dataclass(frozen=True)
class Choice:
    """Where the embeddings of a run are kept."""

    place: Literal["memory", "disk", "off"] = "off"
    folder: Path | None = None
    embeddings: int = 0
    """How many the whole run asks for."""
    bytes: int = 0
    """What they take, in each process that keeps them in memory."""
    said: str = ""
    """What the log says of it; nothing where no embedding could be used twice."""

    def summary(self) -> dict[str, str | int | None]:
        """Return what `summary.json` says of it."""
        folder = None if self.folder is None else str(self.folder)
        return {"place": self.place, "folder": folder, "embeddings": self.embeddings, "bytes": self.bytes}


def asked_for(
    settings: TrainSettings, training: Sequence[Sample], validation: Sequence[Sample], done: int = 0
) -> list[Shown]:
    """Return what all processes of a run ask for after `done` optimizer steps, views of an image together.

    The settings must be resolved and their augmentation one of fixed views.
    """
    order = StepOrder(len(training), resolved(settings.batch_size), accumulate=1, seed=settings.seed)
    steps = resolved(settings.epochs) * order.steps
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    asked = {Shown(sample.image, UNMOVED) for sample in validation}
    for epoch in range(done // order.steps, -(-steps // order.steps)):
        first = max(0, done - epoch * order.steps)
        for [part] in list(order.epoch(epoch, first))[: steps - epoch * order.steps - first]:
            for draw in part:
                sample = training[draw.index]
                asked.add(Shown(sample.image, view_of(settings.augment, settings.seed, sample.id, epoch)))
    return sorted(asked)


def on_disk(settings: TrainSettings, backbone: Backbone, hashes: Mapping[Path, str]) -> OnDisk:
    """Return the embeddings in the cache folder. `hashes`: SHA-256 of every image file."""
    key = partial(
        Key,
        page=settings.page,
        frame=backbone.frame,
        backbone=backbone.card.name,
        variant=backbone.variant,
        base_sha256=backbone.weights_hash,
        numbers=numbers_of(settings),
    )
    return OnDisk(
        embeddings_folder(),
        lambda shown: key(image_sha256=hashes[shown.image], view=shown.view),
    )


def choose(settings: TrainSettings, backbone: Backbone, asked: Sequence[Shown], disk: OnDisk) -> Choice:
    """Return where a run keeps the embeddings that it asks for.

    Not asked where, it takes memory if half of what is free there is enough, else the disk by the same rule,
    else none. Raises `SettingError` if the place that was asked for has no room, `StorageError` if the cache
    folder cannot be made.
    """
    one = embedding_bytes(backbone.card, backbone.frame.size, numbers_of(settings))
    size = one * len(asked)
    what = f"the embeddings of this run ({len(asked)} of {_size(one)}, {_size(size)} in all)"
    needed, memory = size * settings.devices, free_memory()  # each process keeps all of them
    if settings.cache == "memory" and 0 < memory < needed:
        raise SettingError(
            f"--cache memory: {what} take {_size(needed)} in {settings.devices} processes, and "
            f"{_size(memory)} are free; take --cache disk, or leave --cache out"
        )
    if settings.cache == "memory" or (settings.cache == "auto" and needed <= _SHARE * memory):
        return Choice("memory", None, len(asked), size, f"{what} are kept in memory")
    new = one * sum(not disk.holds(shown) for shown in asked)
    held, free = held_bytes(disk.folder), free_disk(disk.folder)
    left = max(0, settings.cache_limit - held)
    room = (
        f"{disk.folder} holds {_size(held)} of the {_size(settings.cache_limit)} of --cache-limit, with "
        f"{_size(free)} free on its disk"
    )
    if settings.cache == "auto" and new > min(left, _SHARE * free):
        return Choice(said=f"{what} are not kept: {_size(memory)} of memory are free, and {room}")
    if new > min(left, free):
        raise SettingError(
            f"--cache disk: {what} need {_size(new)} more, and {room}; raise --cache-limit, delete the "
            "folder (nothing is lost but time), choose another disk with SAMFIT_CACHE, ask for fewer views "
            "with --augment none, or leave --cache out"
        )
    with storage_errors(disk.folder):
        disk.folder.mkdir(parents=True, exist_ok=True)
    return Choice("disk", disk.folder, len(asked), size, f"{what} are kept in {disk.folder}")


def _size(count: float) -> str:
    """Return a number of bytes as people read it: `4.2 MB`."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:.1f} {name}"


class Embeddings:
    """Looks up embeddings instead of computing them, and fills what is missing."""

    def __init__(self, store: Store, model: AdaptedModel, fabric: Fabric, settings: TrainSettings):
        self.store, self.model, self.fabric = store, model, fabric
        self._frames = Frames(model.backbone.frame, settings.page)
        self._workers = settings.workers
        self._autocast = autocast(settings.precision, fabric.device)
        self._half = settings.cache_half
        self._pass = OneByOne()
        # Memory is each process's own, and all of it is needed there; a disk is that of a machine.
        self._apart = isinstance(store, InMemory)
        everybody = (fabric.global_rank, fabric.world_size)
        self._rank, self._world = everybody if self._apart else (fabric.local_rank, settings.devices)

    def of(self, shown: Shown) -> Tensor:
        """Return the embedding (1, E, g, g) of an image in a view, to be read only, on the CPU.

        What was lost since it was put there is computed again.
        """
        embedding = self.store.get(shown)
        if embedding is None:
            with self._encoder_on(self.fabric.device):
                embedding = self._encode(self._frames[shown])
            self.store.put(shown, embedding)
        return embedding.float() if self._half else embedding

    def fill(self, asked: Sequence[Shown], after_each: Callable[[], None]) -> None:
        """Encode what is asked for and missing, shared out over all processes, which must all call this.

        `after_each` is called after every image, in all processes equally often. What is there stays there
        if it raises.
        """
        missing = [shown for shown in asked[self._rank :: self._world] if not self.store.holds(shown)]
        frames = reading(self._frames, self._workers, batch_size=None, sampler=missing)
        for number in track(range(processes.most(len(missing), self.fabric.device)), "encoding images"):
            if number < len(missing):
                self._keep((missing[number], self._encode(next(frames))))
            else:
                self._keep(None)
            after_each()
        self.fabric.barrier()

    def _keep(self, own: tuple[Shown, Tensor] | None) -> None:
        """Put an embedding where it is looked up: in memory those of all other processes too."""
        for entry in processes.gathered(own) if self._apart else [own]:
            if entry is not None:
                self.store.put(*entry)

    @torch.no_grad()
    def _encode(self, frame: Tensor) -> Tensor:
        """Return the embedding of a model frame as it is kept."""
        with self._autocast:
            given = self._pass(lambda: self.model.encode(frame.to(self.fabric.device)).cpu().contiguous())
        return given.half() if self._half else given

    @contextmanager
    def without_encoder(self) -> Iterator[None]:
        """Have the image encoder off the device inside the block: it comes back for what was lost alone."""
        with self._encoder_on(torch.device("cpu")):
            yield

    @contextmanager
    def _encoder_on(self, device: torch.device) -> Iterator[None]:
        encoder = self.model.backbone.get_submodule("image_encoder")
        before = next(encoder.parameters()).device
        on_device(encoder, device)
        try:
            yield
        finally:
            on_device(encoder, before)
