"""The run folder: where everything of a run lies, and the two files that hold tensors.

`adapter.safetensors` holds what was trained and nothing else; `last.ckpt` holds what `--resume` needs. Both
are read without running anything that they contain.
"""

import io
import json
import pickle
import platform
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from samfit.config import parse, read_config
from samfit.defaults import tables
from samfit.errors import RunError, to_call
from samfit.files import remove, write_bytes
from samfit.methods.adapted import AdaptedModel
from samfit.settings import TrainSettings

_MERGED = {"pth": "merged.pth", "safetensors": "merged.safetensors", "transformers": "merged"}
"""Format of merged weights to the name of the file, or of transformers' folder."""
_PUBLISHED = {"pth": "published.pth", "safetensors": "published.safetensors"}
"""Format of an exported checkpoint to the name of the file."""
_HEADER_KEY = "samfit"
_CHECKPOINT_KEYS = {"position", "fingerprint", "base_sha256", "state", "optimizer"}


@dataclass(frozen=True)
class RunFolder:
    """Names of everything in a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting as used; repeats the run with `train --config`."""
        return self.path / "config.yaml"

    @property
    def adapter(self) -> Path:
        """The best epoch on validation data."""
        return self.path / "adapter.safetensors"

    @property
    def base(self) -> Path:
        """The base weights of an imported run, in published names; other runs have none of their own."""
        return self.path / "base.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The last moment from which the run can go on."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """Best epoch, scores, cost and versions."""
        return self.path / "summary.json"

    @property
    def card(self) -> Path:
        """What was trained, on what and how well, in words; imported runs have none."""
        return self.path / "MODEL_CARD.md"

    @property
    def samples(self) -> Path:
        """Sheets of the same validation images as training goes on."""
        return self.path / "samples"

    @property
    def evaluation(self) -> Path:
        """What `evaluate` wrote."""
        return self.path / "evaluation"

    @property
    def tensorboard(self) -> Path:
        """Event files of `--logger tensorboard`."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """Files of `--logger wandb`, which gives the folder its name."""
        return self.path / "wandb"

    @property
    def log(self) -> Path:
        """What was said during the run."""
        return self.path / "log.txt"

    def merged(self, format: str) -> Path:
        """What `merge` writes in one of its formats."""
        return self.path / _MERGED[format]

    def published(self, format: str) -> Path:
        """What `export` writes in one of its formats."""
        return self.path / _PUBLISHED[format]

    def contents(self) -> tuple[Path, ...]:
        """Everything that a run may write."""
        files = (self.config, self.adapter, self.base, self.checkpoint, self.metrics, self.summary, self.card)
        folders = (self.samples, self.evaluation, self.tensorboard, self.wandb)
        return *files, self.log, *folders, *map(self.merged, _MERGED), *map(self.published, _PUBLISHED)

    def holds_run(self) -> bool:
        """Return whether a run was started here."""
        return any(path.exists() for path in (self.config, self.adapter, self.checkpoint))

    def clear(self) -> None:
        """Remove what an older run wrote; whatever else lies in the folder stays."""
        for path in self.contents():
            remove(path)

    def settings(self) -> TrainSettings:
        """Read the settings. Raises `RunError` if this is no run, `SettingError` if they are damaged."""
        if not self.config.is_file():
            what = "there is no such folder" if not self.path.is_dir() else "it has no config.yaml"
            raise RunError(f"{self.path} is not a run of samfit: {what}; give the --output of a training")
        return parse(TrainSettings, read_config(self.config), tables(), str(self.config))


def require_free(run: RunFolder, *, overwrite: bool) -> None:
    """Raise `RunError` if the folder cannot be one, or holds a run and `overwrite` is not given.

    Without `overwrite` nothing may bear a name that a run writes, because it could be somebody else's.
    """
    path = run.path
    require_folder(path)
    if overwrite:
        return
    if run.holds_run():
        raise RunError(
            f"--output {path} already holds a run: choose another folder, go on with "
            f"{to_call('train', '--resume', path)}, or replace it with --overwrite"
        )
    taken = [content.name for content in run.contents() if content.exists()]
    if taken:
        raise RunError(
            f"--output {path} holds {', '.join(taken)}, which a run would replace: choose another folder, or "
            "replace them with --overwrite"
        )


def require_folder(path: Path) -> None:
    """Raise `RunError` if `path` is a file, or lies below one, so that it cannot be a folder."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise RunError(f"--output {path}: {place} is a file; give the name of a new folder")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("samfit", "torch", "transformers", "peft", "lightning-fabric", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


@dataclass(frozen=True)
class AdapterHeader:
    """What an adapter file says of itself."""

    method: str
    backbone: str
    variant: str | None
    """The published training code that built the backbone so, or None."""
    image_size: int
    fit: str
    classes: tuple[str, ...]
    base_sha256: str
    """Hash of the base weights that the adapter was trained on."""
    options: dict[str, Any]
    """Options of the method."""
    versions: dict[str, str]


def header_of(model: AdaptedModel) -> AdapterHeader:
    """Return the header of a model's adapter file."""
    backbone = model.backbone
    return AdapterHeader(
        method=model.row.name,
        backbone=backbone.card.name,
        variant=backbone.variant,
        image_size=backbone.frame.size,
        fit=backbone.frame.fit,
        classes=model.classes,
        base_sha256=backbone.weights_hash,
        options=model.options.model_dump(mode="json"),
        versions=versions(),
    )


def save_adapter(path: Path, model: AdaptedModel) -> None:
    """Write what was trained, with its header. Raises `StorageError` if that fails."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.adapter_state().items()}
    header = json.dumps(asdict(header_of(model)), ensure_ascii=False)
    write_bytes(path, save(state, metadata={_HEADER_KEY: header}))


def read_adapter(path: Path) -> tuple[AdapterHeader, dict[str, Tensor]]:
    """Read an adapter file. Raises `RunError` if it is missing, cut off or not an adapter of samfit."""
    if not path.is_file():
        raise RunError(f"{path}: there is no such adapter file; was the run interrupted in its first epoch?")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise RunError(f"{path} is not a safetensors file, or it is cut off ({error})") from error
    if _HEADER_KEY not in metadata:
        raise RunError(f"{path} holds tensors, but no adapter of samfit: its header is missing")
    try:
        values = json.loads(metadata[_HEADER_KEY])
        header = AdapterHeader(**(values | {"classes": tuple(values["classes"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: its header cannot be read ({error})") from error
    return header, state


def load_adapter(path: Path, model: AdaptedModel) -> None:
    """Load an adapter file into a model on the same base.

    Raises `RunError` that says what the adapter was made for if the model is anything else.
    """
    header, state = read_adapter(path)
    expected = header_of(model)
    names = {"base_sha256": "base weights with hash", "image_size": "image size"}
    for field in ("backbone", "variant", "method", "options", "image_size", "fit", "classes", "base_sha256"):
        made_for, found = getattr(header, field), getattr(expected, field)
        if made_for != found:
            what = names.get(field, field)
            raise RunError(
                f"{path} was made for {what} {_words(made_for)}, but the model has {what} {_words(found)}"
            )
    own = model.adapter_state()
    load_state(path, own, state)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting}" for name, setting in value.items()) or "none"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def load_state(path: Path, own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Copy `state`, as read from `path`, into the tensors `own`; names and shapes must be the same."""
    wrong = sorted(own.keys() ^ state.keys())
    wrong += sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if wrong:
        raise RunError(f"{path}: {len(wrong)} tensors do not fit the model, the first is {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain types to a checkpoint. Raises `StorageError` if that fails."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it.

    Raises `RunError` if it is missing, cut off, not a checkpoint of samfit, or a pickle with code in it.
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no checkpoint to go on from; start again with --overwrite")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} was refused: it is not a checkpoint of samfit, or a pickle with code in it, "
            "which was not run"
        ) from error
    except Exception as error:  # a damaged file makes the reader fail in any way it can
        raise RunError(f"{path} cannot be read: it is cut off, or not a checkpoint") from error
    if not isinstance(content, dict) or content.keys() != _CHECKPOINT_KEYS:
        raise RunError(f"{path} is not a checkpoint of samfit: it does not say where its run stood")
    return content
