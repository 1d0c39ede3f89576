"""Base weights: drawn, downloaded or read from a file; names and shapes must fit to the last tensor."""

import hashlib
import io
import logging
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from samfit.backbones import BACKBONES
from samfit.backbones.base import Backbone
from samfit.backbones.download import fetch
from samfit.backbones.initial import draw_weights
from samfit.errors import WeightsError, nearest
from samfit.files import sha256_of_file

_log = logging.getLogger("samfit")
_SHOWN = 10
_WRAPPERS = ("model", "state_dict")
_EXPECTED = "expected a state dict as .pth, .pt or .safetensors, or a .zip of one"
_HUB_TWINS = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
"""One tensor of the hub's SAM under two names; files hold the first, the second or both."""
_POSITION_TABLES = ("pos_embed", "rel_pos_h", "rel_pos_w", "rel_h", "rel_w")
_ENCODER_BLOCK = re.compile(r"(?:image|vision)_encoder\.(?:blocks|layers)\.(\d+)\.")
_ENCODER_POSITIONS = ("image_encoder.pos_embed", "vision_encoder.pos_embed")


def load_base(backbone: Backbone, weights: str | Path, seed: int) -> None:
    """Set every tensor of `backbone`, and its `weights_hash`.

    `weights`: `published`, `random` (drawn from `seed`) or a file, whose tensors have published names, the
    hub's or this module's own. Position tables are fitted to the image size.

    Raises `WeightsError` for a file that does not fit, and what `download.fetch` raises.
    """
    published = backbone.published_names()
    if weights == "random":
        _log.warning("random base weights: the encoder has learnt nothing")
        draw_weights(backbone, seed)
        state = backbone.state_dict()
        backbone.weights_hash = hash_of({published[name]: state[name] for name in published})
        return
    path = _path_of(backbone, weights)
    set_base(backbone, read_checkpoint(path), path)


def read_base(backbone: Backbone, path: Path) -> dict[str, Tensor]:
    """Return the tensors of base weights under published names, with position tables as in the file.

    Raises `WeightsError` with every name and shape that does not fit `backbone`.
    """
    state, _ = _fitted(backbone, read_checkpoint(path), path)
    published = backbone.published_names()
    return {published[name]: tensor for name, tensor in state.items()}


def set_base(backbone: Backbone, content: Mapping[str, Tensor], path: Path) -> None:
    """Set every tensor of `backbone`, and its `weights_hash`, from what was read from `path`.

    Raises `WeightsError` with every name and shape that does not fit.
    """
    state, fitted = _fitted(backbone, content, path)
    published = backbone.published_names()
    backbone.weights_hash = hash_of({published[name]: tensor for name, tensor in state.items()})
    backbone.load_state_dict(fitted)


def hash_of(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state with published names: names, types, shapes and values, sorted by name.

    Taken before positions are fitted, so it is the same at every image size and for every kind of file.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a `.pth`, `.pt`, `.safetensors` or a `.zip` of one as names and tensors; runs nothing in it.

    The tensors may lie under `model` or `state_dict`. Raises `WeightsError` for anything else.
    """
    content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise WeightsError(
            f"{path} holds no tensors with names (found: {type(content).__name__}); {_EXPECTED}"
        )
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(
            f"{path} is not a file of base weights: no tensors are {_some(strangers)}; {_EXPECTED}"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _read_safetensors(path, path)
    if path.suffix != ".zip":
        return _read_torch(path, path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                name
                for name in archive.namelist()
                if name.endswith((".pt", ".pth", ".safetensors")) and not name.startswith("__MACOSX/")
            ]
            if len(members) != 1:
                raise WeightsError(f"{path} holds {len(members)} files of weights, expected one; {_EXPECTED}")
            content = archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    if members[0].endswith(".safetensors"):
        return _read_safetensors(content, path)
    return _read_torch(io.BytesIO(content), path)


def _read_safetensors(source: Path | bytes, path: Path) -> dict[str, Tensor]:
    try:
        if isinstance(source, bytes):
            return safetensors.torch.load(source)
        return safetensors.torch.load_file(source)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_torch(source: Path | io.BytesIO, path: Path) -> Any:
    # Only torch's newer format, a zip archive, can be mapped instead of read whole.
    mapped = isinstance(source, Path) and zipfile.is_zipfile(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if not _is_pickle(source):
            raise _unreadable(path, error) from error
        code = re.search(r"GLOBAL (\S+)", str(error))
        holds = f" ({code[1]})" if code else ""
        raise WeightsError(
            f"{path} is a pickle with code in it{holds}: refused, because loading it would run that code; "
            f"nothing in it was run. {_EXPECTED.capitalize()}"
        ) from error
    except Exception as error:  # a damaged file makes the reader fail in any way it can
        raise _unreadable(path, error) from error


def _is_pickle(source: Path | io.BytesIO) -> bool:
    """Tell whether a file that torch could not read is a pickle, or an archive with one, at all."""
    if zipfile.is_zipfile(source):
        return True
    start = source.getvalue()[:2] if isinstance(source, io.BytesIO) else source.read_bytes()[:2]
    return start[:1] == pickle.PROTO and start[1:] <= bytes([pickle.HIGHEST_PROTOCOL])


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return WeightsError(f"{path} is cut off or not a checkpoint ({reason}); {_EXPECTED}")


def _path_of(backbone: Backbone, weights: str | Path) -> Path:
    """Return the file to read: the shipped or downloaded one for `published`, else the given one."""
    card = backbone.card
    if weights == "published":
        return fetch(card.weights)
    path = Path(weights)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is not there"
        words = ("published", "random")
        raise WeightsError(
            f"--weights {path}: the file {found}; expected published, random or a file"
            f"{nearest(str(weights), words)}"
        )
    known = card.weights
    if path.name == known.name and known.sha256 not in (None, sha256_of_file(path)):
        _log.warning("%s is not the published %s: its SHA-256 is another", path, known.name)
    return path


def _fitted(
    backbone: Backbone, content: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a file's tensors under the module's names, as they are and with positions fitted.

    Raises `WeightsError` with every name and shape that does not fit.
    """
    content = _without_twin(content)
    own = {name: name for name in backbone.published_names()}
    namings = (backbone.published_names(), backbone.hub_names(), own)
    naming = max(namings, key=lambda names: len(content.keys() & set(names.values())))
    missing = [name for name in naming.values() if name not in content]
    unexpected = sorted(content.keys() - set(naming.values()))
    if missing or unexpected:
        raise _misfit(backbone, content, path, {"missing": missing, "unexpected": unexpected})
    state = {name: content[outside] for name, outside in naming.items()}
    faults = []
    try:
        fitted = backbone.fit_positions(state)
    except WeightsError as error:
        faults.append(str(error))
        fitted = {name: tensor for name, tensor in state.items() if not name.endswith(_POSITION_TABLES)}
    expected = backbone.state_dict()
    faults += [
        f"{naming[name]} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in fitted.items()
        if tensor.shape != expected[name].shape
    ]
    if faults:
        raise _misfit(backbone, content, path, {"wrong shapes": faults})
    whole = [naming[name] for name, tensor in fitted.items() if not tensor.is_floating_point()]
    if whole:
        raise _misfit(backbone, content, path, {"no floating-point numbers": whole})
    return state, fitted


def _without_twin(content: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    twin, kept = _HUB_TWINS
    if twin not in content or any(name.startswith("image_encoder.") for name in content):
        return content
    rest = {name: tensor for name, tensor in content.items() if name != twin}
    return {kept: content[twin]} | rest


def _misfit(
    backbone: Backbone, content: Mapping[str, Tensor], path: Path, faults: Mapping[str, Sequence[str]]
) -> WeightsError:
    name = backbone.card.name
    likely = likely_backbone(content)
    hint = (
        f"; it looks like weights of {likely}: use --backbone {likely}" if likely not in (name, None) else ""
    )
    return WeightsError(listed(f"{path} does not fit {name}{hint}", faults))


def listed(message: str, faults: Mapping[str, Sequence[str]]) -> str:
    """Return the message and below it a line for each kind of fault that there is, with its first names."""
    lines = [f"  {kind} ({len(items)}): {_some(items)}" for kind, items in faults.items() if items]
    return "\n".join([message, *lines])


def likely_backbone(content: Mapping[str, Tensor]) -> str | None:
    """Return the backbone whose encoder has the depth and width of these weights, if there is one."""
    blocks = [int(match[1]) for name in content if (match := _ENCODER_BLOCK.match(name))]
    widths = {content[name].shape[-1:] for name in _ENCODER_POSITIONS if name in content}
    for card in BACKBONES.values():
        if blocks and card.depth == max(blocks) + 1 and (card.architecture["width"],) in widths:
            return card.name
    return None


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
