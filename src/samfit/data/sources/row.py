"""What a data layout gives: samples, and every fault that was met on the way to them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from samfit.errors import SettingError, unknown_name
from samfit.types import Sample


@dataclass(frozen=True)
class Fault:
    """One thing about a data set that its owner should know."""

    level: Literal["error", "warning", "note"]
    """`error`: not usable as it is; `warning`: usable, but likely not meant; `note`: for information."""
    path: Path
    """The file or folder that it is about."""
    message: str
    """The whole sentence, with the names of all files that it is about."""


@dataclass(frozen=True)
class Found:
    """The samples of a data set, as paths; nothing has been decoded yet."""

    samples: tuple[Sample, ...]
    """In order of split and id; samples with a fault of pairing are left out."""
    classes: tuple[str, ...]
    """The classes that were asked for, or all; every sample has masks of each."""
    faults: tuple[Fault, ...] = ()
    values: dict[str, int] = field(default_factory=dict)
    """Class to grey value where classes share one mask, else empty."""


@dataclass(frozen=True)
class Request:
    """What the user asks of a data set."""

    folder: Path
    classes: tuple[str, ...] | None = None
    """Classes to find, or None for all that there are."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Class to grey value in one mask (`--mask-values`)."""

    def choose(self, available: Iterable[str]) -> tuple[str, ...]:
        """Return the classes to find among those `available`. Raises `SettingError` for any other."""
        known = tuple(available)
        for name in self.classes or ():
            if name not in known:
                raise SettingError(f"--classes: {unknown_name('class', name, known)}")
        return tuple(dict.fromkeys(self.classes)) if self.classes else known


@dataclass(frozen=True)
class SourceRow:
    """One data layout."""

    name: str
    summary: str
    """One line for `samfit list datasets`."""
    tree: str
    """An example of the folder tree."""
    find: Callable[[Request], Found]
    """Finds the samples of every split that is there; collects faults of pairing instead of raising them."""
