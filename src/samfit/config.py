"""Settings from flags, config files and Python arguments, with every fault at once; and back into a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from samfit.declare import Settings, choices_of, expected, flag, split_words, value_kind, words_of
from samfit.errors import SettingError, nearest, unknown_name
from samfit.files import write_text

SettingsT = TypeVar("SettingsT", bound=Settings)


def parse(
    model: type[SettingsT],
    values: Mapping[str, Any],
    tables: Mapping[str, Sequence[str]],
    source: str | Mapping[str, str] = MappingProxyType({}),
) -> SettingsT:
    """Check `values` and return the settings.

    `tables`: names that a field with `choices` may take, by table. `source`: the file that the values come
    from, or the file of each field that was not typed as a flag; messages name it. Raises one
    `SettingError` that lists every fault.
    """
    origins = dict.fromkeys(values, source) if isinstance(source, str) else source
    settings, faults = check(model, values, tables)
    if settings is None:
        raise SettingError([_line(field, reason, values, origins) for field, reason in faults.items()])
    return settings


def check(
    model: type[SettingsT], values: Mapping[str, Any], tables: Mapping[str, Sequence[str]]
) -> tuple[SettingsT | None, dict[str, str]]:
    """Return the settings, or None where anything is wrong, and by field what is wrong with it.

    `tables`: as in `parse`.
    """
    known = {field: value for field, value in values.items() if field in model.model_fields}
    faults = {
        field: f"there is no such setting{nearest(flag(field), map(flag, model.model_fields))}"
        for field in values
        if field not in known
    }
    settings = None
    try:
        settings = model.model_validate(known)
    except ValidationError as error:
        for detail in error.errors():
            field = str(detail["loc"][0])
            faults.setdefault(field, _reason(model, field, detail))
    for field, value in known.items():
        table = choices_of(model, field)
        if table is None or value is None:
            continue
        words = split_words(value) if value_kind(model, field) is tuple else value
        for word in words if isinstance(words, list | tuple) else [words]:
            if word not in tables[table]:
                faults[field] = unknown_name(field, str(word), tables[table])
    return (None if faults else settings), faults


def _reason(model: type[Settings], field: str, detail: Any) -> str:
    if detail["type"] == "missing":
        return f"is needed: {model.model_fields[field].description}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return f"expected {expected(model, field)}{nearest(str(detail['input']), words_of(model, field))}"


def _line(field: str, reason: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    if field not in values:
        return f"{flag(field)} {reason}"
    origin = f" (in {origins[field]})" if field in origins else ""
    return f"{flag(field)} {values[field]}{origin}: {reason}"


def read_config(path: Path, given_as: str = "--config") -> dict[str, Any]:
    """Read a YAML file of settings; hyphens and underscores in keys are the same.

    `given_as`: the flag or argument that named the file; messages begin with it.

    Raises `SettingError` if there is no such file, it cannot be read, it is not a mapping, or it says
    something twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(f"{given_as} {path}: not a text file in UTF-8") from error
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SettingError(f"{given_as} {path}: {reason}") from error
    try:
        content = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        raise SettingError(f"{given_as} {path}: not a YAML file: {error}") from error
    if not isinstance(content, dict) or not isinstance(tree, yaml.MappingNode):
        raise SettingError(
            f"{given_as} {path}: expected lines of 'setting: value', found {text.strip()[:40]!r}"
        )
    keys = [str(key.value).replace("-", "_") for key, _ in tree.value]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise SettingError(f"{given_as} {path}: given twice: {', '.join(twice)}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values by field, so that `--config path` repeats the run."""
    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
