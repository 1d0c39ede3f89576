"""Checkpoints with the names of published training codes, filled with the recipe's weights."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec

import numpy as np
import pytest
import torch
from golden_models import GOLDEN_CARD, by_published_name, golden_cad, golden_sam_adapter
from parity_support import recipe
from support import golden
from torch import Tensor

from samfit.backbones import BACKBONES, build_backbone
from samfit.backbones.card import BackboneCard
from samfit.engine.importing import import_checkpoint
from samfit.engine.models import FinishedRun, open_run
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.sam_adapter import SamAdapter
from samfit.runs import RunFolder
from samfit.settings import ImportSettings
from samfit.types import Prompts

P = ParamSpec("P")

CAD, SAM_ADAPTER = "CAD/vit_b", "CAD-repository SAM-Adapter/vit_b"
MEDICAL = "MSA/sam vit_b sam_adpt image_size 256"
MEDICAL_TI = "MSA/efficient_sam Ti sam_adpt image_size 256"
MEDICAL_CARD = replace(
    GOLDEN_CARD,
    architecture=GOLDEN_CARD.architecture | {"pretrained_grid": 64},
    image_size=1024,
    variants=BACKBONES["sam-vit-b"].variants,
)
"""The tiny SAM of the golden files as Medical SAM Adapter has it: at 128 px, made for 1024."""
TI_CARD = replace(BACKBONES["efficientsam-ti"], name="golden-efficientsam", depth=3)

_TWINS = ((r"\.task_adapter_blocks\.\d+\.up_projection\.", ".task_adapter_up."), ("Depth_", "Space_"))
"""Names that a file has beside those of the model, and the tensors that have the same shape."""
_BLOCK = re.compile(r"\.(task_adapter_)?blocks\.(\d+)\.")


@cache
def published() -> dict[str, dict[str, tuple[list[int], str]]]:
    """Return the names of every published model with shapes and types."""
    return json.loads(golden("published_state_dict_keys.json").read_text())["names"]


def full_size(model: str) -> dict[str, Tensor]:
    """Return a state dict with the names and shapes of a published model."""
    return {name: _filled(name, shape, dtype) for name, (shape, dtype) in published()[model].items()}


def small(model: str, ours: AdaptedModel) -> dict[str, Tensor]:
    """Return a state dict with the names of a published model, as deep as ours and with our shapes."""
    shapes = {name: list(tensor.shape) for name, tensor in by_published_name(ours, ours.state_dict()).items()}
    grid, width = (ours.backbone.card.architecture[key] for key in ("pretrained_grid", "width"))
    if ours.backbone.card.module == "sam":  # in a file the table has its first size
        shapes["image_encoder.pos_embed"] = [1, grid, grid, width]
    return {
        name: _filled(name, shapes[_twin(name)], dtype)
        for name, (_, dtype) in published()[model].items()
        if _is_within(name, ours.backbone.card.depth)
    }


def _filled(name: str, shape: list[int], dtype: str) -> Tensor:
    source = _twin(name) if "up_projection" in name else name
    return torch.from_numpy(recipe(source, shape)).to(getattr(torch, dtype))


def _twin(name: str) -> str:
    for pattern, twin in _TWINS:
        name = re.sub(pattern, twin, name)
    return name


def _is_within(name: str, depth: int) -> bool:
    match = _BLOCK.search(name)
    return match is None or int(match[2]) < depth + bool(match[1])


def write(path: Path, state: Mapping[str, Tensor], *, wrapped: bool) -> Path:
    """Save a state dict as the published codes do: alone, or under `state_dict` beside other entries."""
    others: dict[str, Any] = {
        "epoch": 7,
        "model": "sam",
        "best_tol": 0.25,
        "path_helper": {"prefix": "logs/run"},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 1e-4, "foreach": None}],
        },
    }
    torch.save(others | {"state_dict": dict(state)} if wrapped else dict(state), path)
    return path


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint on a tiny SAM."""

    card: BackboneCard
    make: Callable[[], dict[str, Tensor]]
    wrapped: bool


def made_once(make: Callable[P, dict[str, Tensor]]) -> Callable[P, dict[str, Tensor]]:
    """Make a state dict once for each choice of arguments, and give everyone a dict of their own."""
    kept = cache(make)
    return lambda *arguments, **named: dict(kept(*arguments, **named))


@made_once
def cad_state() -> dict[str, Tensor]:
    """Return a checkpoint of CAD on the tiny SAM."""
    return small(CAD, golden_cad())


@made_once
def sam_adapter_state() -> dict[str, Tensor]:
    """Return a checkpoint of the SAM-Adapter of CAD's repository on the tiny SAM."""
    return small(SAM_ADAPTER, golden_sam_adapter())


@made_once
def medical_state(
    name: str = MEDICAL_CARD.name, image_size: int = 128, model: str = MEDICAL
) -> dict[str, Tensor]:
    """Return a checkpoint of Medical SAM Adapter on a backbone of the table."""
    backbone = build_backbone(name, variant="medical-sam-adapter", image_size=image_size)
    return small(model, attach(backbone, "medical-adapter"))


KINDS = {
    "CAD": Kind(GOLDEN_CARD, cad_state, wrapped=False),
    "CAD's SAM-Adapter": Kind(GOLDEN_CARD, sam_adapter_state, wrapped=False),
    "Medical SAM Adapter": Kind(MEDICAL_CARD, medical_state, wrapped=True),
}


def imported(
    folder: Path, state: dict[str, Tensor], *, wrapped: bool = False, **settings: Any
) -> FinishedRun:
    """Save a checkpoint in `folder`, import it and open the run."""
    file = write(folder / "checkpoint.pth", state, wrapped=wrapped)
    return open_run(
        RunFolder(import_checkpoint(ImportSettings(file=file, output=folder / "run", **settings)))
    )


def answer(run: FinishedRun, model: AdaptedModel | None = None) -> Tensor:
    """Return the logits of a run's model, or of another, for a fixed image and prompt."""
    frame = run.model.backbone.frame
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    extra = None if run.model.row.reader is None else run.model.row.reader(image, frame)[None]
    prompts = Prompts(torch.tensor([[[40.0, 60.0]]]), torch.tensor([[1]]), has_box=False)
    with torch.no_grad():
        return (model or run.model)(frame.to_model(image)[None], extra, prompts)


def narrow_sam_adapter(backbone: Any, options: Any, first_block: int) -> SamAdapter:
    """Build the adapter of the golden files, a quarter as wide inside as published."""
    card = backbone.card
    return SamAdapter(card.architecture["width"], card.patch, card.depth, first_block, hidden=8)


def know(monkeypatch: pytest.MonkeyPatch, card: BackboneCard) -> None:
    """Put a card into the table of backbones, and build SAM-Adapter as narrow as in the golden files."""
    monkeypatch.setattr("samfit.methods.sam_adapter.build", narrow_sam_adapter)
    table = MappingProxyType(dict(BACKBONES) | {card.name: card})
    for module in ("backbones", "backbones.weights", "defaults"):
        monkeypatch.setattr(f"samfit.{module}.BACKBONES", table)
