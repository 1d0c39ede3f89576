"""Making a training fit the memory that there is, before it starts."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from samfit import processes
from samfit.backbones import BACKBONES, card_of
from samfit.cache.size import cache_bytes, embeddings_folder, free_disk, held_bytes, numbers_of
from samfit.declare import typed
from samfit.defaults import why_not_cached
from samfit.engine.devices import free_bytes
from samfit.errors import SettingError
from samfit.methods import METHODS, row_of
from samfit.plan.choice import ALLOWANCE, best_way, peak, setups_of
from samfit.plan.setup import Device, Setup, setup_of
from samfit.progress import track
from samfit.settings import TrainSettings, resolved

logger = logging.getLogger(__name__)

_GB = 1e9
_SHARE_OF_CPU = 0.05
"""Of the free memory, what a step may take on a CPU before less is kept."""
_SMALLER = (768, 512, 384, 256)
"""Image sizes that are tried where one does not fit."""


def fit_to_vram(
    settings: TrainSettings, classes: int, device: torch.device, *, training: int, validation: int
) -> TrainSettings:
    """Return the settings with precision, checkpointing, parts and cache so that a batch fits `--vram`.

    What was given is kept. Without `--vram` nothing is chosen. `training` and `validation`: how many images
    there are, whose embeddings a cache would hold. Raises `SettingError` with the nearest that fits if no
    choice does.
    """
    if settings.vram is None:
        return settings
    asked = _asked(settings, classes, device)
    budget = settings.vram - ALLOWANCE
    setups = list(_setups(asked, settings, training, validation))
    way = best_way(setups, budget, accumulated=settings.accumulate > 1)
    if way is None:
        raise _too_small(replace(setups[-1], batch_size=1), budget)
    chosen: dict[str, Any] = {
        "precision": way.setup.precision,
        "checkpointing": "on" if way.setup.checkpointing else "off",
        "accumulate": min(way.parts * settings.accumulate, resolved(settings.batch_size)),
        "cache": "disk" if way.setup.cached and settings.cache == "auto" else settings.cache,
    }
    logger.info(
        "--vram %.2f GB: %s; a step takes %.2f GB, and CUDA or Python about %.1f GB; given up: %s",
        settings.vram / _GB,
        ", ".join(typed(field, value) for field, value in chosen.items()),
        peak(way.setup, accumulated=way.parts * settings.accumulate > 1) / _GB,
        ALLOWANCE / _GB,
        "; ".join(way.given_up) or "nothing",
    )
    return settings.model_copy(update=chosen)


def needs_checkpointing(
    settings: TrainSettings, classes: int, device: torch.device, *, cached: bool = False
) -> bool:
    """Return whether a step computes parts of the model again in backward; the same in all processes.

    `auto`: if keeping all that they made would take, in any process, more than what is free on its GPU, or
    more than its share of a twentieth of a CPU's free memory, which everything else that runs shares.
    `cached`: whether embeddings are read. Settings must be resolved. All processes must call this.
    """
    if settings.checkpointing != "auto":
        return settings.checkpointing == "on"
    here = _is_short(settings, classes, device, cached=cached)
    if not processes.anywhere(here, device):
        return False
    if not here:
        logger.info("--checkpointing on: another process has less memory free")
    return True


def _is_short(settings: TrainSettings, classes: int, device: torch.device, *, cached: bool) -> bool:
    """Return whether a step of this process may not keep all that the parts of the model made; say why."""
    free = free_bytes(device)
    if free is None:
        return False
    room = free - ALLOWANCE if device.type == "cuda" else free * _SHARE_OF_CPU / settings.devices
    asked = _asked(settings, classes, device, cached=cached)
    needed = peak(asked, accumulated=settings.accumulate > 1)
    if needed <= room:
        return False
    logger.info(
        "--checkpointing on: a step would take %.1f GB without it, and may take %.1f GB of the %.1f GB that "
        "are free on the device",
        needed / _GB,
        max(0, room) / _GB,
        free / _GB,
    )
    return True


def _asked(settings: TrainSettings, classes: int, device: torch.device, *, cached: bool = False) -> Setup:
    """Return the setup of a step without checkpointing."""
    kind: Device = "gpu" if device.type == "cuda" else "cpu"
    return setup_of(settings, classes=classes, device=kind, checkpointing=False, cached=cached)


def _setups(asked: Setup, settings: TrainSettings, training: int, validation: int) -> Iterator[Setup]:
    """Yield every setup that the settings leave open, best first, with a cache only where it has room."""
    open_cache = settings.cache == "auto" and why_not_cached(settings) is None
    open_precision = "precision" not in settings.model_fields_set and not settings.cache_half
    for setup in setups_of(
        asked,
        precisions=["32", "bf16"] if open_precision else [settings.precision],
        checkpointing=[False, True] if settings.checkpointing == "auto" else [settings.checkpointing == "on"],
        cached=[False, True] if open_cache else [settings.cache in ("memory", "disk")],
    ):
        chosen = settings.model_copy(update={"precision": setup.precision})
        if not (open_cache and setup.cached) or _has_room(chosen, training, validation):
            yield setup


def _has_room(settings: TrainSettings, training: int, validation: int) -> bool:
    """Return whether the cache folder can take the embeddings of all images."""
    needed = cache_bytes(
        card_of(settings.backbone, settings.variant),
        image_size=resolved(settings.image_size),
        numbers=numbers_of(settings),
        augment=settings.augment,
        epochs=resolved(settings.epochs),
        training=training,
        validation=validation,
    )
    folder = embeddings_folder()
    return needed <= min(settings.cache_limit - held_bytes(folder), free_disk(folder))


def _too_small(leanest: Setup, budget: int) -> SettingError:
    """Return the error that says what a single image needs, and the nearest of each kind that would fit."""
    kinds = track([_smaller(leanest), _other_methods(leanest), _other_backbones(leanest)], "what would fit")
    found = [next((words for words, setup in others if peak(setup) <= budget), None) for others in kinds]
    words = ", or ".join(filter(None, found))
    near = f"what would fit: {words}" if words else "nothing near it would fit"
    return SettingError(
        f"--vram {(budget + ALLOWANCE) / _GB:.2f} GB: {leanest.method} on {leanest.backbone} at "
        f"{leanest.image_size} px takes {(peak(leanest) + ALLOWANCE) / _GB:.2f} GB for a single image, "
        f"{ALLOWANCE / _GB:.1f} GB of it for CUDA or Python; {near} ('samfit plan --vram' shows all)"
    )


def _smaller(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield the setup at smaller sizes, the largest first, with the flag that makes it so."""
    patch, share = card_of(setup.backbone, setup.variant).patch, row_of(setup.method).loss_fraction
    for size in _SMALLER:
        if size < setup.image_size and size % patch == 0:
            yield typed("image_size", size), replace(setup, image_size=size, loss_size=size // share)


def _other_methods(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield the setup with the other methods, those that train most first."""
    for method in reversed(tuple(METHODS)):
        if method != setup.method:
            row = row_of(method)
            theirs = {"options": (), "loss": row.defaults["loss"]}
            size = setup.image_size // row.loss_fraction
            cached = setup.cached and row.caches_embedding
            yield (
                typed("method", method),
                replace(setup, method=method, loss_size=size, cached=cached, **theirs),
            )


def _other_backbones(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield the setup on the other backbones of its size, the largest first."""
    card = card_of(setup.backbone, setup.variant)
    others = [one for one in BACKBONES.values() if one.image_size == card.image_size and one != card]
    for other in sorted(others, key=lambda other: other.architecture["width"], reverse=True):
        yield typed("backbone", other.name), replace(setup, backbone=other.name, variant=None)
