"""Making a training fit the memory that there is, before it starts."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from samfit.backbones import BACKBONES, card_of
from samfit.declare import typed
from samfit.defaults import why_not_cached
from samfit.engine.devices import free_bytes
from samfit.errors import SettingError
from samfit.methods import METHODS, row_of
from samfit.plan.choice import ALLOWANCE, best_way, peak, ways
from samfit.plan.setup import Device, Setup, setup_of
from samfit.progress import track
from samfit.settings import TrainSettings

logger = logging.getLogger(__name__)

_GB = 1e9
_SHARE_OF_CPU = 0.05
"""Of the free memory, what a step may take on a CPU before less is kept."""
_SMALLER = (768, 512, 384, 256)
"""Image sizes that are tried where one does not fit."""


def fit_to_vram(settings: TrainSettings, classes: int, device: torch.device) -> TrainSettings:
    """Return the settings with precision, checkpointing, parts and cache so that a batch fits `--vram`.

    What was given is kept. Without `--vram` nothing is chosen. Raises `SettingError` with the nearest that
    fits if no choice does.
    """
    if settings.vram is None:
        return settings
    asked = _asked(settings, classes, device)
    budget = settings.vram - ALLOWANCE
    way = best_way(_ways(asked, settings), budget)
    if way is None:
        raise _too_small(asked, settings, budget)
    chosen: dict[str, Any] = {
        "precision": way.setup.precision,
        "checkpointing": "on" if way.setup.checkpointing else "off",
        "accumulate": way.parts * settings.accumulate,
        "cache": "disk" if way.setup.cached else settings.cache,
    }
    logger.info(
        "--vram %.2f GB: %s; a step takes %.2f GB, and CUDA or Python about %.1f GB; given up: %s",
        settings.vram / _GB,
        ", ".join(typed(field, value) for field, value in chosen.items()),
        peak(way.setup) / _GB,
        ALLOWANCE / _GB,
        "; ".join(way.given_up) or "nothing",
    )
    return settings.model_copy(update=chosen)


def needs_checkpointing(
    settings: TrainSettings, classes: int, device: torch.device, *, cached: bool = False
) -> bool:
    """Return whether a step computes parts of the model again in backward.

    `auto`: if keeping all that they made would take more than what is free on a GPU, or more than a
    twentieth of a CPU's free memory, which everything else that runs shares. `cached`: whether embeddings
    are read. Settings must be resolved.
    """
    if settings.checkpointing != "auto":
        return settings.checkpointing == "on"
    free = free_bytes(device)
    if free is None:
        return False
    room = free - ALLOWANCE if device.type == "cuda" else free * _SHARE_OF_CPU
    needed = peak(_asked(settings, classes, device, cached=cached))
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


def _ways(asked: Setup, settings: TrainSettings) -> list[Setup]:
    """Return every setup that the settings leave open, best first."""
    open_cache = settings.cache == "auto" and why_not_cached(settings) is None
    return ways(
        asked,
        precisions=[settings.precision] if "precision" in settings.model_fields_set else ["32", "bf16"],
        checkpointing=[False, True] if settings.checkpointing == "auto" else [settings.checkpointing == "on"],
        cached=[False, True] if open_cache else [settings.cache in ("memory", "disk")],
    )


def _too_small(asked: Setup, settings: TrainSettings, budget: int) -> SettingError:
    """Return the error that says what is needed, and what would fit instead."""
    leanest = replace(_ways(asked, settings)[-1], batch_size=1)
    others = track(list(_others(leanest)), "looking for what fits")
    found = [words for words, setup in others if _fits(setup, budget)]
    near = f"what would fit: {', or '.join(found)}" if found else "nothing that samfit has would fit"
    return SettingError(
        f"--vram {(budget + ALLOWANCE) / _GB:.2f} GB: {leanest.method} on {leanest.backbone} at "
        f"{leanest.image_size} px takes {(peak(leanest) + ALLOWANCE) / _GB:.2f} GB for a single image, "
        f"{ALLOWANCE / _GB:.1f} GB of it for CUDA or Python; {near} ('samfit plan --vram' shows all)"
    )


def _others(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield setups that are a little different, with the flag that makes them so."""
    card = card_of(setup.backbone, setup.variant)
    for size in _SMALLER:
        if size < setup.image_size and size % card.patch == 0:
            share = row_of(setup.method).loss_fraction
            yield typed("image_size", size), replace(setup, image_size=size, loss_size=size // share)
    for method in METHODS:
        if method != setup.method:
            cached = setup.cached and row_of(method).caches_embedding
            yield typed("method", method), replace(setup, method=method, options=(), cached=cached)
    for backbone in BACKBONES:
        if backbone != setup.backbone and BACKBONES[backbone].image_size == card.image_size:
            yield typed("backbone", backbone), replace(setup, backbone=backbone, variant=None)


def _fits(setup: Setup, budget: int) -> bool:
    return peak(setup) <= budget
