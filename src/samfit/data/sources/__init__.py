"""The table of data layouts, and how one is read from a folder. Nothing is decoded here."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from samfit.data.sources import camo, cod10k, isic2016, istd, refuge
from samfit.data.sources import folder as _folder
from samfit.data.sources.groups import assign_groups
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError, SettingError, unknown_name
from samfit.settings import DataSettings, resolved

__all__ = ["SOURCES", "Fault", "Found", "SourceRow", "find_of", "find_samples"]

SOURCES: Mapping[str, SourceRow] = MappingProxyType(
    {row.name: row for row in (_folder.ROW, isic2016.ROW, refuge.ROW, cod10k.ROW, camo.ROW, istd.ROW)}
)


def find_samples(
    dataset: str,
    folder: Path,
    *,
    classes: tuple[str, ...] | None = None,
    values: dict[str, int] | None = None,
    group: str | None = None,
) -> Found:
    """Find the samples of the layout `dataset` in `folder`.

    `classes`: which classes, or None for all. `values`: class to grey value where classes share one mask.
    `group`: what images belong to (`--group`), as `groups.assign_groups` takes it. Faults of pairing, and
    images without a group, are collected in the result. Raises `SettingError` for an unknown layout or class,
    values that cannot be told apart or a file of groups that cannot be used, and `DataError` if the folder is
    missing or holds nothing usable.
    """
    if dataset not in SOURCES:
        raise SettingError(f"--dataset: {unknown_name('dataset', dataset, SOURCES)}")
    _check_values(values or {})
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; --data must name the folder of the data set")
    found = SOURCES[dataset].find(Request(folder, classes, values or {}))
    faults = tuple(dict.fromkeys(found.faults))
    if not found.samples:
        raise DataError(
            [fault.message for fault in faults if fault.level == "error"] or f"{folder}: no images"
        )
    samples = found.samples
    if group is not None:
        samples, ungrouped = assign_groups(samples, folder, group)
        faults += tuple(ungrouped)
    return Found(samples, found.classes, faults, found.values)


def find_of(settings: DataSettings) -> Found:
    """Find the samples that settings name, as `find_samples` does."""
    return find_samples(
        settings.dataset,
        resolved(settings.data),
        classes=settings.classes,
        values=settings.mask_values,
        group=settings.group,
    )


def _check_values(values: Mapping[str, int]) -> None:
    for name, value in values.items():
        if not 0 < value <= 65535:
            raise SettingError(f"--mask-values {name}={value}: expected 1 to 65535 (0 is background)")
    shared = [value for value, count in Counter(values.values()).items() if count > 1]
    if shared:
        names = " and ".join(name for name, value in values.items() if value == shared[0])
        raise SettingError(f"--mask-values: {names} have the same value {shared[0]}")
