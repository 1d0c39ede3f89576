"""`import`: a checkpoint that a published training code wrote becomes a run."""

import logging
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samfit.backbones import build_backbone, card_of
from samfit.backbones.card import BackboneCard
from samfit.backbones.weights import likely_backbone, listed, read_checkpoint, set_base
from samfit.backbones.writing import write_state
from samfit.config import parse, write_config
from samfit.defaults import in_words, resolve, tables
from samfit.engine.published import KINDS, UNSUPPORTED, PublishedKind, adapter_names, kind_of
from samfit.errors import SettingError, WeightsError, to_call
from samfit.files import sha256_of_file, write_json
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder, require_free, save_adapter, versions
from samfit.settings import ImportSettings, TrainSettings, resolved

logger = logging.getLogger(__name__)


def import_checkpoint(settings: ImportSettings) -> Path:
    """Make a run of a checkpoint, and return its folder.

    Kind, backbone and image size are recognised from the names and shapes of the tensors; every one of them
    must fit. Nothing in the file is run. Raises `WeightsError` if it is no checkpoint of a known kind,
    `SettingError` if the settings do not fit it, `RunError` if the folder cannot be one; before anything is
    written.
    """
    folder = RunFolder(settings.output)
    require_free(folder, overwrite=settings.overwrite)
    path = settings.file
    if not path.is_file():
        raise WeightsError(f"{path}: {'is a folder' if path.is_dir() else 'there is no such file'}")
    content = read_checkpoint(path)
    kind, card = _recognise(content, path)
    run = _settings_of_run(settings, kind, card, kind.image_size(content, card))
    logger.info("%s: %s on %s at %d px", path, kind.name, card.name, resolved(run.image_size))
    model = _model(run, kind, content, path)
    if settings.overwrite:
        folder.clear()
    logger.info("writing %s", folder.path)
    try:
        _write_base(folder.base, content, model.backbone.published_names().values())
        save_adapter(folder.adapter, model)
        write_json(folder.summary, _summary(kind, run, model, path))
        write_config(folder.config, in_words(run))
    except BaseException:  # half of a run would stand in the way of the next attempt
        folder.clear()
        raise
    return folder.path


def _recognise(content: Mapping[str, Tensor], path: Path) -> tuple[PublishedKind, BackboneCard]:
    """Return what wrote the checkpoint and the backbone in it. Raises `WeightsError` if that is not known."""
    backbone = likely_backbone(content)
    for part, name in UNSUPPORTED.items():
        if any(part in tensor for tensor in content):
            raise WeightsError(f"{path}: a checkpoint of {name}, which samfit cannot import; {_known()}")
    kind = kind_of(content)
    if kind is None and backbone is not None:
        raise WeightsError(
            f"{path}: weights of {backbone} without an adapter; train on them with "
            + to_call("train", "--backbone", backbone, "--weights", path)
        )
    if kind is None:
        raise WeightsError(
            f"{path}: no checkpoint that samfit knows, the first of its {len(content)} tensors is "
            f"{next(iter(content))}; {_known()}"
        )
    if backbone is None or not kind.builds(card_of(backbone)):
        found = f"on {backbone}" if backbone else "on a backbone of unknown depth and width"
        raise WeightsError(f"{path}: a checkpoint of {kind.name} {found}, which samfit cannot import")
    return kind, card_of(backbone, kind.variant)


def _known() -> str:
    return f"known: {', '.join(kind.name for kind in KINDS)}"


def _settings_of_run(
    settings: ImportSettings, kind: PublishedKind, card: BackboneCard, image_size: int
) -> TrainSettings:
    """Return every setting of the run; what the file does not say is as the method's row and card say."""
    if len(settings.classes) > kind.most_classes:
        raise SettingError(
            f"--classes {','.join(settings.classes)}: a checkpoint of {kind.name} gives at most "
            f"{kind.most_classes} of them"
        )
    values: dict[str, Any] = {
        "data": None,
        "output": settings.output,
        "backbone": card.name,
        "method": kind.method,
        "weights": str(RunFolder(settings.output).base.absolute()),
        "variant": kind.variant,
        "image_size": image_size,
        "fit": settings.fit,
        "classes": settings.classes,
    }
    return resolve(parse(TrainSettings, values, tables()))


def _model(
    run: TrainSettings, kind: PublishedKind, content: Mapping[str, Tensor], path: Path
) -> AdaptedModel:
    """Return the model that the settings describe with the checkpoint's tensors in it."""
    backbone = build_backbone(run.backbone, variant=run.variant, image_size=run.image_size, fit=run.fit)
    model = attach(backbone, run.method, classes=resolved(run.classes))
    base, names, own = backbone.published_names().values(), adapter_names(model), model.adapter.state_dict()
    layout = {published: own[name] for name, published in names.items()}
    repetitions, left_out = kind.repetitions(layout), kind.left_out(layout)
    layout |= {name: layout[twin] for name, twin in (repetitions | left_out).items()}
    faults = _misfits(content, layout, set(base))
    if any(faults.values()):
        what = f"{kind.name} on {run.backbone} at {run.image_size} px"
        raise WeightsError(listed(f"{path} does not fit {what}", faults))
    unequal = [name for name, twin in repetitions.items() if not content[name].equal(content[twin])]
    if unequal:
        shared = ", ".join(sorted(set(repetitions.values())))
        message = f"{path}: {kind.name} has {shared} in every block, but the file has other values in some"
        raise WeightsError(listed(message, {"not equal": unequal}))
    set_base(backbone, {name: content[name] for name in base}, path)
    model.adapter.load_state_dict({name: content[published] for name, published in names.items()})
    if left_out:
        few = f"{len(left_out)} tensors such as {next(iter(left_out))}"
        logger.info("left out, because no image passes them: %s", few)
    return model


def _misfits(
    content: Mapping[str, Tensor], layout: Mapping[str, Tensor], base: Set[str]
) -> dict[str, list[str]]:
    """Return what is wrong with the names of a checkpoint, and with its tensors beside the base's.

    `layout`: tensors like those expected beside the base's, by published name; `base`: names of the base's.
    """
    known = base | layout.keys()
    there = [(name, content[name], tensor) for name, tensor in layout.items() if name in content]
    return {
        "missing": sorted(known - content.keys()),
        "unexpected": sorted(content.keys() - known),
        "wrong shapes": [
            f"{name} {tuple(found.shape)} instead of {tuple(tensor.shape)}"
            for name, found, tensor in there
            if found.shape != tensor.shape
        ],
        "no floating-point numbers": [
            name
            for name, found, tensor in there
            if tensor.is_floating_point() and not found.is_floating_point()
        ],
    }


def _write_base(path: Path, content: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Write the base weights as they are in the checkpoint: position tables are fitted when they are read."""
    # safetensors refuses tensors that share memory or lie scattered in it, as those of a checkpoint may.
    state = {name: content[name].clone(memory_format=torch.contiguous_format) for name in names}
    write_state(path, state, "safetensors")


def _summary(kind: PublishedKind, run: TrainSettings, model: AdaptedModel, path: Path) -> dict[str, Any]:
    return {
        "imported": {"kind": kind.name, "file": str(path.absolute()), "sha256": sha256_of_file(path)},
        "prompt": run.prompt,
        "trained_parameters": sum(parameter.numel() for parameter in model.trained().values()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "base_sha256": model.backbone.weights_hash,
        "versions": versions(),
    }
