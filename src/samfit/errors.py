"""Every error that samfit raises on purpose.

    SamfitError
    ├── UserError            the person at the keyboard can mend it; exit status 2
    │   ├── SettingError     a flag, a config key or an argument
    │   ├── DataError        a file of a data set, or its layout
    │   ├── WeightsError     base weights: a file, its names, shapes or hash
    │   └── RunError         a run folder, an adapter file or a checkpoint
    ├── MachineError         the machine failed; exit status 1
    │   ├── StorageError     a file could not be written, usually because the disk is full
    │   └── DownloadError    base weights could not be fetched
    └── Interrupted          Ctrl-C or SIGTERM during a run; exit status 130 or 143

A message says which file or flag, what was found, what was expected and what to do.
"""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches


class SamfitError(Exception):
    """Base of all errors of samfit; `exit_status` is what the command line ends with."""

    exit_status = 1


class UserError(SamfitError):
    """Something that the user gave is wrong and can be mended."""

    exit_status = 2


class SettingError(UserError):
    """A flag, a config key or an argument has no meaning or a wrong value.

    `faults` holds one message for each fault.
    """

    def __init__(self, faults: str | Iterable[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        several = f"{len(self.faults)} settings are wrong:"
        super().__init__(self.faults[0] if len(self.faults) == 1 else "\n  ".join([several, *self.faults]))


class DataError(UserError):
    """A data set cannot be used as it is. `faults` holds one message for each fault."""

    def __init__(self, faults: str | Iterable[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class WeightsError(UserError):
    """Base weights cannot be loaded: the file, its names, its shapes or its hash are wrong."""


class RunError(UserError):
    """A run folder, an adapter file or a checkpoint cannot be used."""


class MachineError(SamfitError):
    """The machine failed, not the user."""


class StorageError(MachineError):
    """A file could not be written."""


class DownloadError(MachineError):
    """Base weights could not be fetched."""


class Interrupted(SamfitError):
    """A run was stopped by Ctrl-C (status 130) or SIGTERM (status 143) after it wrote its checkpoint."""

    def __init__(self, message: str, exit_status: int = 130):
        super().__init__(message)
        self.exit_status = exit_status


def to_call(*words: object) -> str:
    """Return a call of samfit between quotes, such that a shell takes what is between them word for word."""
    return f"'{shlex.join(['samfit', *map(str, words)])}'"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known word closest to `word`, or an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that a table does not hold, with the nearest match and all names."""
    names = list(known)
    return f"unknown {kind} '{name}'{nearest(name, names)} (known: {', '.join(names)})"
