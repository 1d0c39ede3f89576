"""Two processes that score one set by two protocols; a module of its own, so that they load little else."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from samfit.data.batches import Preparation, PromptRule, ScoredSet
from samfit.data.inspect import inspect
from samfit.data.sources import find_samples
from samfit.engine.scoring import score_protocols
from samfit.methods import attach
from samfit.metrics.protocols import PROTOCOLS
from samfit.testing import small_backbone

WORLD = 2


def scores_of(data: Path, rank: int = 0, world: int = 1) -> dict[str, list[dict[str, Any]]]:
    """Return what one of several processes gets for a click on each image, by protocol."""
    found = find_samples("isic2016", data)
    model = attach(small_backbone("sam-tiny", image_size=32), "decoder", classes=found.classes).eval()
    frame = model.backbone.frame
    rule = PromptRule("click", clicks=2, seed=3)
    samples = ScoredSet(
        found.samples, Preparation(found.classes, inspect(found).reading, frame, rule, model.row.reader)
    )
    fabric = SimpleNamespace(global_rank=rank, world_size=world, device=torch.device("cpu"))
    protocols = [PROTOCOLS["msa-guide"], PROTOCOLS["istd"]]
    scores = score_protocols(model, frame, samples, fabric, 1, protocols)
    return {name: [asdict(score) for score in several] for name, several in scores.items()}


def score_share(rank: int, data: str, folder: str) -> None:
    """Be one of the processes: write the scores that it gets into `folder`."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(scores_of(Path(data), rank, WORLD)))
    dist.destroy_process_group()
