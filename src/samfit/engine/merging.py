"""`merge`: a finished run becomes plain weights of its backbone."""

import logging
from pathlib import Path

from samfit.backbones.masks import PUBLISHED
from samfit.backbones.writing import HUB_CONFIG, HUB_WEIGHTS, write_weights
from samfit.engine.models import open_run
from samfit.errors import RunError, SettingError
from samfit.methods import row_of
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder, require_folder
from samfit.settings import ExportSettings, MergeSettings, TrainSettings

logger = logging.getLogger(__name__)

_ENDINGS = {"pth": (".pth", ".pt"), "safetensors": (".safetensors",)}
"""How the name of a file must end, so that its format is known when it is read."""


def merge(settings: MergeSettings) -> Path:
    """Write a run's backbone with everything that was trained in it, and return the file or folder.

    The weights are those of the run's image size, position tables included. Raises `RunError` if there is no
    finished run or the output cannot be written there, `SettingError` if the method cannot be merged or the
    format does not fit; before anything is written.
    """
    folder = RunFolder(settings.run)
    run = folder.settings()
    row_of(run.method).require_mergeable()
    path = settings.output or folder.merged(settings.format)
    require_writable(path, settings, (folder.adapter, folder.base, Path(run.weights)))
    model = open_run(folder).model
    write_weights(model.merge(), path, settings.format)
    _explain(path, run, model, settings.format)
    return path


def require_writable(path: Path, settings: MergeSettings | ExportSettings, needed: tuple[Path, ...]) -> None:
    """Raise an error if `path` cannot be written, or holds what must stay: `needed` in any case."""
    if settings.format == "transformers":
        require_folder(path)
        files = (path / HUB_CONFIG, path / HUB_WEIGHTS)
    else:
        require_folder(path.parent)
        files = (path,)
        endings = _ENDINGS[settings.format]
        if path.suffix not in endings:
            raise SettingError(
                f"--output {path}: expected a name that ends in {' or '.join(endings)} for "
                f"--format {settings.format}"
            )
    for file in files:
        if file.is_dir():
            raise RunError(f"{file} is a folder; give the name of a new file with --output")
        if file.resolve() in {other.resolve() for other in needed}:
            raise RunError(f"{file}: the run itself needs this file; choose another --output")
        if file.exists() and not settings.overwrite:
            raise RunError(
                f"{file} is there already; choose another --output, or replace it with --overwrite"
            )


def _explain(path: Path, run: TrainSettings, model: AdaptedModel, format: str) -> None:
    """Say what another program must do to get the run's masks from its weights."""
    masks = ", ".join(str(mask) for mask in range(model.masks.start, model.masks.stop))
    classes = ", ".join(model.classes)
    logger.info(
        "made for --image-size %s --fit %s; with --prompt %s, %s of the decoder",
        run.image_size,
        run.fit,
        run.prompt,
        f"{classes} is mask {masks}" if len(model.classes) == 1 else f"{classes} are masks {masks}",
    )
    if model.masks.stop > PUBLISHED and format != "transformers":
        logger.warning(
            "%s has %d masks, one for each class and one more; --weights takes %d as published, and so does "
            "other code unless its decoder is built with more; --format transformers says how many there are",
            path,
            model.masks.stop,
            PUBLISHED,
        )
