"""`export`: a run's model as the published code saves it, under its names."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from samfit.backbones.weights import read_base
from samfit.backbones.writing import write_state
from samfit.declare import flag
from samfit.engine.merging import merge, require_writable
from samfit.engine.models import FinishedRun, open_run
from samfit.engine.published import KINDS, PublishedKind, adapter_names
from samfit.errors import RunError
from samfit.runs import RunFolder
from samfit.settings import ExportSettings, MergeSettings

logger = logging.getLogger(__name__)

_OTHERWISE = (
    "builds the backbone in another way, so that its masks would differ (a run that was imported from it can "
    "go back)"
)


def export(settings: ExportSettings) -> Path:
    """Write a run's whole model to one file under published names, and return the file.

    With the layers of a method in it, it is what the code of its publication saves, and `import_checkpoint`
    reads it back; a method that adds none gives plain weights, as `merge` does. Raises `RunError` if there is
    no finished run, the output cannot be written there, or no published code would give the run's masks;
    before anything is written.
    """
    folder = RunFolder(settings.run)
    trained = folder.settings()
    path = settings.output or folder.published(settings.format)
    kind = next((kind for kind in KINDS if kind.method == trained.method), None)
    if kind is None:
        given = settings.model_copy(update={"output": path}).model_dump()
        return merge(MergeSettings.model_validate(given))
    require_writable(path, settings, (folder.adapter, folder.base, Path(trained.weights)))
    run = open_run(folder)
    _require_same_masks(kind, run)
    state = _state(kind, run)
    logger.info("a checkpoint of %s on %s at %s px", kind.name, trained.backbone, trained.image_size)
    write_state(path, state, settings.format, under=kind.entry)
    return path


def _require_same_masks(kind: PublishedKind, run: FinishedRun) -> None:
    """Raise `RunError` if the published code cannot load the run, or would give other masks."""
    backbone, classes = run.model.backbone, len(run.model.classes)
    card, size = backbone.card, backbone.frame.size
    given = run.model.options.model_dump(exclude_defaults=True)
    faults = (
        (not kind.builds(card), f"has no {card.name}"),
        (backbone.variant != kind.variant, _OTHERWISE),
        (size != card.image_size and not kind.size_table, f"works at {card.image_size} px, not at {size}"),
        (bool(given), f"does not know {', '.join(map(flag, given))}"),
        (classes > kind.most_classes, f"gives masks for at most {kind.most_classes} of {classes} classes"),
    )
    reasons = [reason for holds, reason in faults if holds]
    if reasons:
        raise RunError(
            f"{run.folder.path} cannot go to the code of {kind.name}: it {', and it '.join(reasons)}"
        )


def _state(kind: PublishedKind, run: FinishedRun) -> dict[str, Tensor]:
    """Return every tensor that the published code saves."""
    backbone = run.model.backbone
    own = backbone.state_dict()
    state = {published: own[name] for name, published in backbone.published_names().items()}
    if backbone.frame.size != backbone.card.image_size:
        state |= _frozen(run)
    tensors = run.model.adapter.state_dict()
    adapter = {published: tensors[name] for name, published in adapter_names(run.model).items()}
    # Clones, because safetensors refuses two names for one tensor.
    repetitions = {name: adapter[twin].clone() for name, twin in kind.repetitions(adapter).items()}
    left_out = {name: torch.zeros_like(adapter[twin]) for name, twin in kind.left_out(adapter).items()}
    if left_out:
        logger.info(
            "zeros, because no image passes them: %d tensors such as %s", len(left_out), next(iter(left_out))
        )
    return state | adapter | repetitions | left_out


def _frozen(run: FinishedRun) -> dict[str, Tensor]:
    """Return what was not trained as it is in the file of base weights, with position tables of that size."""
    backbone, weights = run.model.backbone, run.settings.weights
    if weights == "random":
        raise RunError(
            f"{run.folder.path} cannot be exported: its random position tables were drawn for "
            f"{backbone.frame.size} px, and the published code saves those for {backbone.card.image_size}"
        )
    names = backbone.published_names()
    for name in run.model.trained():
        names.pop(name.removeprefix("backbone."), None)
    base = read_base(backbone, Path(weights))
    return {name: base[name] for name in names.values()}
