"""How a setting is declared, and what its declaration says to the person who sets it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationInfo, field_validator

POSITIONAL: Mapping[str, str] = MappingProxyType(
    {"run": "RUN", "images": "IMAGE...", "file": "FILE", "recipe": "RECIPE"}
)
"""Settings that are written without a flag, with the word that `--help` shows for them."""


def setting(default: Any, help: str, section: str, *, choices: str | None = None, **bounds: Any) -> Any:
    """Declare one setting: its default, help text, section in `--help`, table of names and bounds."""
    extra: dict[str, Any] = {"section": section} | ({"choices": choices} if choices else {})
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base of the settings of every command."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, info: ValidationInfo) -> Any:
        """Bring a value from a YAML file to what the same words on the command line would be.

        YAML reads `precision: 32` as a number where a word is meant, and `epochs: yes` as a truth value,
        which Python would take for the number 1.
        """
        kind = value_kind(cls, str(info.field_name))
        unusable = isinstance(value, bool) and kind is not bool
        if unusable or (value == "" and kind in (Path, str)):
            raise ValueError(f"expected {expected(cls, str(info.field_name))}")
        if isinstance(value, int | float) and kind in (Path, str, Literal):
            return str(value)
        return value


def flag(field: str) -> str:
    """Return a field as the user types it: `image_size` → `--image-size`, `run` → `RUN`."""
    return POSITIONAL.get(field) or "--" + field.replace("_", "-")


def written(value: Any) -> str:
    """Return a value as it is written behind its flag: `q,v` for several words, `disc=1,cup=2` for pairs."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={one}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def split_words(value: Any) -> Any:
    """Read `q,v` as two words; anything but a text is taken as it is."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


def typed(field: str, value: Any) -> str:
    """Return a setting as the user types it: `--rank 8`, `--targets q,v`, `--dora`."""
    return flag(field) if value is True else f"{flag(field)} {written(value)}"


def choices_of(model: type[Settings], field: str) -> str | None:
    """Return the name of the table that a field's values come from, or None."""
    extra = model.model_fields[field].json_schema_extra
    return str(extra["choices"]) if isinstance(extra, dict) and "choices" in extra else None


def value_type(model: type[Settings], field: str) -> Any:
    """Return the type of a field without its `None`."""
    annotation = model.model_fields[field].annotation
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if type(None) in get_args(annotation) else annotation


def value_kind(model: type[Settings], field: str) -> Any:
    """Return what a field holds: one of `_KINDS`, or `Literal`."""
    kind = value_type(model, field)
    return get_origin(kind) or kind


def words_of(model: type[Settings], field: str) -> tuple[str, ...]:
    """Return the words that a field of one or several `Literal` words may hold, or nothing for any other."""
    kind = value_type(model, field)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) is Literal else ()


def bounds_of(model: type[Settings], field: str) -> dict[str, float]:
    """Return the bounds of a field by their names in pydantic: some of `ge`, `gt`, `le`, `lt`."""
    return {
        bound: getattr(rule, bound)
        for rule in model.model_fields[field].metadata
        for bound in ("ge", "gt", "le", "lt")
        if hasattr(rule, bound)
    }


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    Path: "a path",
    tuple: "names, comma-separated",
    dict: "name=value,name=value",
    ByteSize: "a size as 8GiB or 8GB",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def limits(model: type[Settings], field: str) -> str:
    """Say which values a field may have: `at least 1 and at most 5`, `one of pad, squeeze`, or nothing."""
    words = words_of(model, field)
    if words:
        return f"{'some' if value_kind(model, field) is tuple else 'one'} of {', '.join(words)}"
    return " and ".join(f"{_BOUNDS[bound]} {limit}" for bound, limit in bounds_of(model, field).items())


def expected(model: type[Settings], field: str) -> str:
    """Say what a field may hold: `a whole number, at least 1 and at most 5`, or `one of pad, squeeze`."""
    kind = _KINDS.get(value_kind(model, field))
    return ", ".join(part for part in (kind, limits(model, field)) if part)
