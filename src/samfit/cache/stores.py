"""The two places where embeddings are kept: memory, and files that later runs find again.

A file is safetensors with the embedding and, in its header, the key that it is for and a checksum. Whatever
does not fit, is damaged or cut off is as good as not there.
"""

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from samfit.cache.size import Numbers
from samfit.data.shown import Shown
from samfit.data.transforms import View
from samfit.files import atomic_path
from samfit.frame import Frame

PREPROCESSING = 1
"""To be raised with every change of how a file becomes a model frame, or a frame an embedding: what older
versions kept is then not found any more."""
_TENSOR = "embedding"
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Key:
    """Everything that an embedding depends on beyond rounding. How attention is computed is not among it."""

    image_sha256: str
    """Of the bytes of the file."""
    page: int | None
    view: View
    frame: Frame
    backbone: str
    variant: str | None
    base_sha256: str
    numbers: Numbers
    preprocessing: int = PREPROCESSING

    @property
    def text(self) -> str:
        """All of it, the same for the same values."""
        return json.dumps(asdict(self), sort_keys=True)


class Store(ABC):
    """Keeps embeddings (1, E, g, g) on the CPU, each with its type."""

    @abstractmethod
    def holds(self, shown: Shown) -> bool:
        """Return whether the embedding was kept; damage inside may show up in `get` only."""

    @abstractmethod
    def get(self, shown: Shown) -> Tensor | None:
        """Return what was kept, to be read only, or None."""

    @abstractmethod
    def put(self, shown: Shown, embedding: Tensor) -> None:
        """Keep an embedding. Raises `StorageError` if that fails."""


class InMemory(Store):
    """Keeps them as long as the process runs."""

    def __init__(self) -> None:
        self._kept: dict[Shown, Tensor] = {}

    def holds(self, shown: Shown) -> bool:
        """Return whether it is there."""
        return shown in self._kept

    def get(self, shown: Shown) -> Tensor | None:
        """Return it, or None."""
        return self._kept.get(shown)

    def put(self, shown: Shown, embedding: Tensor) -> None:
        """Keep it."""
        self._kept[shown] = embedding


class OnDisk(Store):
    """Keeps each in a file of its own below `folder`, which any number of processes may share.

    `key_of`: what the embedding of an image in a view depends on.
    """

    def __init__(self, folder: Path, key_of: Callable[[Shown], Key]):
        self.folder, self.key_of = folder, key_of

    def path(self, key: Key) -> Path:
        """Return the file of a key; folders by the first two digits keep each of them short."""
        name = sha256(key.text.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def holds(self, shown: Shown) -> bool:
        """Return whether there is a whole file for it, from the file's header and length."""
        return self._read(shown, lambda file: True) is not None

    def get(self, shown: Shown) -> Tensor | None:
        """Return it, or None if there is none or its values were damaged."""
        return self._read(shown, _checked)

    def put(self, shown: Shown, embedding: Tensor) -> None:
        """Write it in one step; of two processes that do so at once, the last one's file stays."""
        key = self.key_of(shown)
        header = {"key": key.text, "checksum": _checksum(embedding)}
        # Not flushed to the disk at once: a file that a power cut damages is as good as not there.
        with atomic_path(self.path(key)) as temporary:
            temporary.write_bytes(save({_TENSOR: embedding.contiguous()}, metadata=header))

    def _read(self, shown: Shown, take: Callable[[Any], ResultT]) -> ResultT | None:
        """Return what `take` finds in the file of the image and view, or None if the file does not fit."""
        key = self.key_of(shown)
        try:
            with safetensors.safe_open(self.path(key), framework="pt") as file:
                return take(file) if (file.metadata() or {}).get("key") == key.text else None
        except (OSError, safetensors.SafetensorError):
            return None


def _checked(file: Any) -> Tensor | None:
    tensor = file.get_tensor(_TENSOR)
    return tensor if file.metadata().get("checksum") == _checksum(tensor) else None


def _checksum(tensor: Tensor) -> str:
    """Return what tells whether type, shape or values were damaged."""
    start = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    return f"{zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().reshape(-1).data, start):08x}"
