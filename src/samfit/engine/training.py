"""`train` and `resume`: from settings to a finished run folder."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from samfit.cache.stores import InMemory
from samfit.config import parse, write_config
from samfit.data.batches import Preparation, ScoredSet, TrainingSet
from samfit.data.fingerprint import fingerprint, hashes_of
from samfit.data.inspect import Inspection, inspect, require_sound, say_doubts
from samfit.data.sources import Found, find_of
from samfit.data.splits import held_apart, hold_out
from samfit.defaults import in_words, require_prompt_class, resolve, tables, why_not_cached
from samfit.engine.devices import open_fabric, peak_in_words
from samfit.engine.embeddings import Choice, Embeddings, asked_for, choose, on_disk
from samfit.engine.fitting import fit_to_vram, needs_checkpointing
from samfit.engine.loaded import LoadedRun, load_run
from samfit.engine.logs import open_logger, require_logger
from samfit.engine.loop import Loop, Task
from samfit.engine.memory import on_device
from samfit.engine.models import build_model, prompt_rule
from samfit.errors import RunError, SettingError, to_call
from samfit.files import storage_errors, write_json, write_text
from samfit.methods.adapted import AdaptedModel
from samfit.methods.precision import store_frozen
from samfit.metrics.protocols import DEFAULT, from_truth
from samfit.progress import is_first_process, track
from samfit.report.model_card import model_card
from samfit.runs import RunFolder, read_checkpoint, require_free, versions
from samfit.settings import TrainSettings, is_table, resolved
from samfit.types import Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The data set of a training, read and found sound."""

    found: Found
    training: list[Sample]
    validation: list[Sample]
    inspection: Inspection
    hashes: dict[Path, str]
    """SHA-256 of every file."""
    fingerprint: str


def train(settings: TrainSettings, *, overwrite: bool = False, model: AdaptedModel | None = None) -> Path:
    """Train as the settings say and return the run folder, with the summary in `summary.json`.

    `overwrite`: replace a run that the output folder holds. `model`: an adapted model to train, instead of
    the one that the settings describe; it must be what they describe.

    Raises `SettingError`, `DataError`, `WeightsError` or `RunError` before anything is written, and
    `Interrupted` if Ctrl-C or SIGTERM stopped the run, after its checkpoint was written.
    """
    settings = from_anywhere(resolve(settings))
    require_logger(settings.logger)
    fabric = _open_fabric(settings)
    if is_first_process():
        require_free(RunFolder(settings.output), overwrite=overwrite)
    if Path(settings.weights).absolute() == RunFolder(settings.output).base.absolute():
        raise SettingError(
            f"--output {settings.output}: the folder holds the base weights of this training, and they would "
            "be replaced; choose another one"
        )
    data = look_at(settings)
    if is_first_process():
        settings = fit_to_vram(
            settings,
            len(data.found.classes),
            fabric.device,
            training=len(data.training),
            validation=len(data.validation),
        )
    if model is None:
        model = build_model(settings, data.found.classes)
    elif model.classes != data.found.classes:
        raise SettingError(
            f"the model has the classes {', '.join(model.classes)}, the data set "
            f"{', '.join(data.found.classes)}: attach the method with classes={data.found.classes}"
        )
    return _run(settings, data, model, fabric, resumed=False)


def fit(model: AdaptedModel, *, overwrite: bool = False, **settings: Any) -> LoadedRun:
    """Train an adapted model and return its run at the best epoch, ready to segment images.

    `settings`: fields of `TrainSettings`; those that describe the model are taken from it. Raises what
    `train` raises, and `SettingError` for a seed other than that of the model's random weights.
    """
    backbone = model.backbone
    weights, seed = backbone.weights_from
    described = {
        "backbone": backbone.card.name,
        "method": model.row.name,
        "weights": weights,
        "variant": backbone.variant,
        "image_size": backbone.frame.size,
        "fit": backbone.frame.fit,
        "classes": model.classes,
        **dict(model.options),
    }
    twice = sorted(described.keys() & settings.keys())
    if twice:
        raise SettingError(f"{', '.join(twice)}: the model says so already; leave it out")
    if weights == "random" and settings.setdefault("seed", seed) != seed:
        raise SettingError(f"seed {settings['seed']}: the model's random weights were drawn from {seed}")
    full = parse(TrainSettings, described | settings, tables())
    run = train(full, overwrite=overwrite, model=model)
    return load_run(run, accelerator=full.accelerator, attention=full.attention)


def resume(run: Path) -> Path:
    """Go on with an interrupted run, with its own settings, and return its folder.

    Raises `RunError` if there is no checkpoint, or if data or base weights have changed since.
    """
    folder = RunFolder(run)
    settings = folder.settings().model_copy(update={"output": run})
    if settings.data is None:
        raise RunError(
            f"{run} was imported, not trained here: there is nothing to go on with; to train from it, start "
            "another run with "
            + to_call("train", "--config", folder.config, "--data", "DIR", "--output", "RUN")
        )
    if folder.summary.is_file():
        logger.info("%s is finished; there is nothing left to train", run)
        return run
    checkpoint = read_checkpoint(folder.checkpoint)
    fabric = _open_fabric(settings)
    data = look_at(settings)
    if checkpoint["fingerprint"] != data.fingerprint:
        raise RunError(f"{run} cannot go on: the files of {settings.data} have changed since it was started")
    model = build_model(settings, data.found.classes)
    if checkpoint["base_sha256"] != model.backbone.weights_hash:
        raise RunError(
            f"{run} cannot go on: it was started on base weights with hash {checkpoint['base_sha256']}, "
            f"--weights {settings.weights} now has {model.backbone.weights_hash}"
        )
    return _run(settings, data, model, fabric, resumed=True)


def from_anywhere(settings: TrainSettings) -> TrainSettings:
    """Return the settings with absolute paths, so that the run can be used from any folder."""
    if settings.data is None:  # from the config file of an imported run
        raise SettingError(f"--data is needed: {TrainSettings.model_fields['data'].description}")
    update: dict[str, Any] = {"data": settings.data.absolute()}
    if settings.weights not in ("published", "random") and Path(settings.weights).exists():
        update["weights"] = str(Path(settings.weights).absolute())
    if settings.group is not None and is_table(settings.group):
        update["group"] = str(Path(settings.group).absolute())
    return settings.model_copy(update=update)


def look_at(settings: TrainSettings) -> Data:
    """Read the whole data set once and refuse it if anything in it is wrong."""
    found = find_of(settings)
    require_prompt_class(settings, found.classes)
    apart = held_apart(found.samples, settings.validation_fraction, settings.seed)
    inspection = inspect(replace(found, samples=apart), page=settings.page, progress=track)
    require_sound(inspection)
    training, validation = hold_out(found.samples, settings.validation_fraction, settings.seed)
    say_doubts(inspection)
    hashes = hashes_of(found.samples)
    return Data(found, training, validation, inspection, hashes, fingerprint(found.samples, hashes))


def _run(settings: TrainSettings, data: Data, model: AdaptedModel, fabric: Fabric, *, resumed: bool) -> Path:
    cache = _choose_cache(settings, data, model) if is_first_process() else Choice()
    fabric.launch()  # the others' disks may have other room: what the first has chosen holds
    settings, cache = fabric.broadcast((settings, cache))
    model.backbone.attend(settings.attention)
    store_frozen(model, settings.precision)
    model.checkpointing = needs_checkpointing(
        settings, len(model.classes), fabric.device, cached=cache.place != "off"
    )
    on_device(model, fabric.device)  # a large one may not fit: nothing is written yet
    folder = RunFolder(settings.output)
    task = _task(settings, folder, data, model, _embeddings(settings, data, model, fabric, cache))
    if fabric.is_global_zero and not resumed:
        folder.clear()
        write_config(folder.config, in_words(settings))
    tool_name = settings.logger if fabric.is_global_zero else None
    began = time.perf_counter()
    with (
        _log_file(folder, fabric),
        open_logger(tool_name, folder, in_words(settings)) as tool,
    ):
        if cache.said:
            logger.info("%s", cache.said)
        loop = Loop(task, fabric, tool)
        if resumed:
            loop.resume()
        loop.run()
    if fabric.is_global_zero:
        summary = _summary(loop, data, cache, time.perf_counter() - began)
        write_text(folder.card, model_card(in_words(settings), summary))
        write_json(folder.summary, summary)
    fabric.barrier()
    return folder.path


def _open_fabric(settings: TrainSettings) -> Fabric:
    """Return the devices of a training. Raises `SettingError` if this machine does not have them."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # every process would introduce itself
    return open_fabric(
        settings.accelerator, devices=settings.devices, nodes=settings.nodes, strategy=settings.strategy
    )


def _choose_cache(settings: TrainSettings, data: Data, model: AdaptedModel) -> Choice:
    """Return where embeddings are kept. Raises `SettingError` if there is no room where they should be."""
    if settings.cache == "off" or why_not_cached(settings) is not None:
        return Choice()
    asked = asked_for(settings, data.training, data.validation)
    return choose(settings, model.backbone, asked, on_disk(settings, model.backbone, data.hashes))


def _embeddings(
    settings: TrainSettings, data: Data, model: AdaptedModel, fabric: Fabric, cache: Choice
) -> Embeddings | None:
    if cache.place == "off":
        return None
    in_files = cache.place == "disk"
    store = on_disk(settings, model.backbone, data.hashes) if in_files else InMemory()
    return Embeddings(store, model, fabric, settings)


def _task(
    settings: TrainSettings,
    folder: RunFolder,
    data: Data,
    model: AdaptedModel,
    embeddings: Embeddings | None,
) -> Task:
    preparation = Preparation(
        classes=model.classes,
        reading=data.inspection.reading,
        frame=model.backbone.frame,
        prompt=prompt_rule(settings, settings.seed),
        read_extra=model.row.reader,
        page=settings.page,
        embedded=embeddings is not None,
    )
    assert settings.loss_size is not None
    training = TrainingSet(data.training, preparation, loss_size=settings.loss_size, augment=settings.augment)
    validation = ScoredSet(data.validation, preparation, None if embeddings is None else embeddings.of)
    return Task(settings, folder, model, training, validation, data.fingerprint, embeddings)


class _LogFile(logging.FileHandler):
    """Leaves out a line that cannot be written; the files that matter say that the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""


@contextmanager
def _log_file(folder: RunFolder, fabric: Fabric) -> Iterator[None]:
    """Keep what is said during the run in log.txt."""
    if not fabric.is_global_zero:
        yield
        return
    root = logging.getLogger("samfit")
    with storage_errors(folder.log):
        handler = _LogFile(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # as above
            handler.close()


def _summary(loop: Loop, data: Data, cache: Choice, seconds: float) -> dict[str, Any]:
    task, position, fabric = loop.task, loop.position, loop.fabric
    best = position.rows[position.best_epoch - 1]
    trained = task.model.trained().values()
    return {
        "best_epoch": position.best_epoch,
        "epochs": position.epoch,
        "steps": loop.steps_taken,
        "validation": {
            column.removeprefix("validation_"): value
            for column, value in best.items()
            if column.startswith("validation_")
        },
        "protocol": DEFAULT.name,
        "prompt": task.settings.prompt,
        "prompt_from_truth": from_truth(resolved(task.settings.prompt)),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "images": {
            "train": len(task.training.samples),
            "validation": len(task.validation.samples),
        },
        "cache": cache.summary(),
        "out_of_memory": asdict(loop.stepper.at_once) | {"splits_statistics": loop.stepper.splits_statistics},
        "mask_reading": data.inspection.reading.describe(),
        "empty_masks": data.inspection.empty_masks,
        **peak_in_words(fabric.device),
        "seconds": round(sum(row["seconds"] for row in position.rows), 3),
        "wall_seconds": round(seconds, 3),
        "data_fingerprint": task.fingerprint,
        "base_sha256": task.model.backbone.weights_hash,
        "versions": versions(),
    }
