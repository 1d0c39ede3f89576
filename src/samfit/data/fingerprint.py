"""What a data set holds, as one hash: it changes with any file, name, split or group of it."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from samfit.files import sha256_of_file
from samfit.types import Sample


def hashes_of(samples: Iterable[Sample]) -> dict[Path, str]:
    """Return the SHA-256 of every file of the samples."""
    return {path: sha256_of_file(path) for sample in samples for path in _files(sample)}


def fingerprint(samples: Iterable[Sample], hashes: Mapping[Path, str]) -> str:
    """Hash ids, splits, groups and file contents of a data set, the same wherever it lies.

    `hashes`: what `hashes_of` returns for the samples.
    """
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: (sample.split, sample.id)):
        files = [hashes[path] for path in _files(sample)]
        for part in (sample.split, sample.id, sample.group or "", *files):
            digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _files(sample: Sample) -> list[Path]:
    return [sample.image, *(path for paths in sample.masks.values() for path in paths)]
