"""Which images belong together, as those of one patient do (`--group`): from their names or a CSV file."""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from samfit.data.sources.row import Fault
from samfit.errors import SettingError
from samfit.settings import is_table
from samfit.types import Sample

COLUMNS = ("image", "group")
_NAMED = 5
"""Images that a message names, of those that it is about."""


def assign_groups(
    samples: Sequence[Sample], folder: Path, group: str
) -> tuple[tuple[Sample, ...], list[Fault]]:
    """Return the samples with their groups, and an error fault that names those without one.

    `group`: a regular expression, found in the name of an image without its extension, whose one pair of
    parentheses holds the group; or a CSV file with the columns image and group. There an image goes by its
    file name, with or without extension, or, where a name comes twice, by its path in `folder`.

    Raises `SettingError` if the CSV file cannot be read or gives an image two groups.
    """
    if is_table(group):
        groups, faults = _by_table(samples, folder, Path(group))
        reason = "the file names none of them"
    else:
        pattern, faults = re.compile(group), []
        matches = [pattern.search(sample.id) for sample in samples]
        groups = [match[1] if match else None for match in matches]
        reason = "the expression finds nothing in their names without extension"
    without = [sample.image for sample, name in zip(samples, groups, strict=True) if not name]
    if without and not faults:
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        names = ", ".join(map(str, without[:_NAMED]))
        message = f"--group {group}: images without a group: {names}{more}; {reason}"
        faults.append(Fault("error", without[0], message))
    return tuple(replace(one, group=name or None) for one, name in zip(samples, groups, strict=True)), faults


def _by_table(samples: Sequence[Sample], folder: Path, table: Path) -> tuple[list[str | None], list[Fault]]:
    """Return the group of each sample, and a fault for each name that is that of several images."""
    listed = _read(table)
    keys = [next((key for key in _keys(sample.image, folder) if key in listed), None) for sample in samples]
    faults = []
    for key, count in Counter(keys).items():
        if key is not None and count > 1:
            images = [sample.image for sample, own in zip(samples, keys, strict=True) if own == key]
            message = (
                f"--group {table}: '{key}' may be any of {' and '.join(map(str, images))}; name each by its "
                f"path in {folder}"
            )
            faults.append(Fault("error", images[0], message))
    return [None if key is None else listed[key] for key in keys], faults


def _keys(image: Path, folder: Path) -> list[str]:
    """Return what a table may call an image, the most definite first."""
    names = (image.relative_to(folder).as_posix(), image.name, image.stem)
    return [unicodedata.normalize("NFC", name) for name in names]


def _read(table: Path) -> dict[str, str]:
    """Return image to group as the table has them."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a byte-order mark
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingError(f"--group {table}: not a CSV file in UTF-8 ({error})") from error
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SettingError(f"--group {table}: {reason}") from error
    expected = f"expected the columns {','.join(COLUMNS)}"
    header = rows[0][1] if rows else []
    if any(header.count(column) != 1 for column in COLUMNS):
        raise SettingError(f"--group {table}: {expected}, found '{','.join(header)}'")
    image, group = map(header.index, COLUMNS)
    groups: dict[str, str] = {}
    for line, row in rows[1:]:
        if len(row) != len(header) or not row[image] or not row[group]:
            raise SettingError(f"--group {table}, line {line}: {expected}, found '{','.join(row)}'")
        name = unicodedata.normalize("NFC", row[image].replace("\\", "/"))
        if groups.setdefault(name, row[group]) != row[group]:
            raise SettingError(
                f"--group {table}, line {line}: {name} is of the group {row[group]}, and above it is of "
                f"{groups[name]}"
            )
    return groups
