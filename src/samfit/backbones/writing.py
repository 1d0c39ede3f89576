"""Plain weights as files that other programs load: the other way of `weights`."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from samfit.backbones.base import Backbone
from samfit.errors import SettingError
from samfit.files import write_bytes, write_text

HUB_CONFIG, HUB_WEIGHTS = "config.json", "model.safetensors"
"""The files of a folder that transformers loads."""


def write_weights(
    backbone: Backbone, path: Path, format: Literal["pth", "safetensors", "transformers"]
) -> None:
    """Write every tensor of a backbone, at its image size, for `--weights` and for other programs.

    `pth` and `safetensors` are a file with the published names; `transformers` is a folder for
    `SamModel.from_pretrained`. What is there is replaced. Raises `SettingError` if transformers has no such
    model, `StorageError` if the files cannot be written.
    """
    if format != "transformers":
        write_state(path, _renamed(backbone, backbone.published_names()), format)
        return
    config = backbone.hub_config()
    if config is None:
        variant = f" as {backbone.variant} builds it" if backbone.variant else ""
        raise SettingError(
            f"--format transformers: transformers has no model for {backbone.card.name}{variant}; "
            "take pth or safetensors"
        )
    write_state(path / HUB_WEIGHTS, _renamed(backbone, backbone.hub_names()), "safetensors")
    write_text(path / HUB_CONFIG, config)


def write_state(
    path: Path,
    state: Mapping[str, Tensor],
    format: Literal["pth", "safetensors"],
    *,
    under: str | None = None,
) -> None:
    """Write tensors with their names, and nothing else, in one step. Raises `StorageError` if that fails.

    `under`: the entry of a `pth` file that holds them, where its readers look for one.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if format == "safetensors":
        content = safetensors.torch.save(plain, metadata={"format": "pt"})  # transformers 4 asks for it
    else:
        buffer = io.BytesIO()
        torch.save({under: plain} if under else plain, buffer)
        content = buffer.getvalue()
    write_bytes(path, content)


def _renamed(backbone: Backbone, names: Mapping[str, str]) -> dict[str, Tensor]:
    state = backbone.state_dict()
    return {name: state[own] for own, name in names.items()}
