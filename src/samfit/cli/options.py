"""Flags made from the declarations of settings, and settings made from the flags that were given."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem
from pydantic import ByteSize

from samfit.config import parse, read_config
from samfit.declare import (
    POSITIONAL,
    Settings,
    choices_of,
    flag,
    limits,
    value_kind,
    value_type,
    words_of,
    written,
)
from samfit.defaults import tables
from samfit.methods import owners

_SECTIONS = ("Data", "Model", "Method", "Prompt", "Training", "Scores", "Run", "Output", "Machine", "Help")
"""The order of sections in `--help`."""
_METAVARS = {
    int: "N",
    float: "X",
    str: "NAME",
    Path: "PATH",
    tuple: "NAME,NAME",
    tuple[float, float]: "X,X",
    dict: "NAME=VALUE,…",
    ByteSize: "SIZE",
    Literal: "WORD",
}

SettingsT = TypeVar("SettingsT", bound=Settings)


class Option(click.Option):
    """An option that knows its section in `--help`."""

    def __init__(self, *args: Any, section: str = "Output", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.section = section


class SettingOption(Option):
    """The flag of one setting. It takes any word: `samfit.config.parse` checks all flags at once."""

    def __init__(self, model: type[Settings], field: str):
        declared = model.model_fields[field]
        extra = declared.json_schema_extra
        kind = value_kind(model, field)
        super().__init__(
            [flag(field)],
            section=str(extra["section"]) if isinstance(extra, dict) else "",
            help=declared.description,
            default=None,
            is_flag=kind is bool,
            metavar=None if kind is bool else _METAVARS.get(value_type(model, field), _METAVARS.get(kind)),
        )
        self.model = model
        self.field = field

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the flag and its help: what it is, which methods have it, what it may be, its default."""
        record = super().get_help_record(ctx)
        assert record is not None
        methods = owners(self.field)
        whose = f"({', '.join(methods)})" if methods else ""
        return record[0], " ".join(part for part in (record[1], whose, self.notes()) if part)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the words that the setting may have, or let the shell offer files where it is a path."""
        if value_kind(self.model, self.field) is Path:
            return _files(ctx, self, incomplete)
        table = choices_of(self.model, self.field)
        words = tables()[table] if table else words_of(self.model, self.field)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    def notes(self) -> str:
        """Say which values the setting may have, and its default: `[at least 1] [default: 4]`."""
        declared = self.model.model_fields[self.field]
        table = choices_of(self.model, self.field)
        several = value_kind(self.model, self.field) is tuple
        names = f"{'some' if several else 'one'} of {', '.join(tables()[table])}" if table else ""
        allowed = names or limits(self.model, self.field)
        default = "" if declared.default is None or self.is_flag else f"default: {written(declared.default)}"
        notes = (allowed, "needed" if declared.is_required() else default)
        return " ".join(f"[{note}]" for note in notes if note)


class SettingsCommand(click.Command):
    """A command with a flag for every field of `settings`, whose help shows them in sections."""

    def __init__(self, *args: Any, settings: type[Settings], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.params = [_parameter(settings, field) for field in settings.model_fields] + self.params

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every option under its section."""
        for section, records in self.sections(ctx):
            with formatter.section(section):
                formatter.write_dl(records)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Yield each section that has options with the flag and the help of each of them."""
        for section in _SECTIONS:
            records = [
                parameter.get_help_record(ctx)
                for parameter in self.get_params(ctx)
                if isinstance(parameter, click.Option) and getattr(parameter, "section", "Help") == section
            ]
            if records:
                yield section, [record for record in records if record]


def _parameter(model: type[Settings], field: str) -> click.Parameter:
    if field not in POSITIONAL:
        return SettingOption(model, field)
    many = value_kind(model, field) is tuple
    nargs = -1 if many else 1
    return click.Argument(
        [field], required=True, nargs=nargs, metavar=POSITIONAL[field], shell_complete=_files
    )


def _files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer files and folders: every setting without a flag is one."""
    return [CompletionItem(incomplete, type="file")]


def read_settings(model: type[SettingsT], given: Mapping[str, Any], config: Path | None = None) -> SettingsT:
    """Check what was typed, and what the config file says, and return the settings.

    `given`: a command's parameters by field, None where the user left the flag out. Flags go before the
    file, the file before the defaults. Raises one `SettingError` that lists every fault.
    """
    typed = {field: value for field, value in given.items() if value is not None}
    file = read_config(config) if config else {}
    origins = {field: str(config) for field in file if field not in typed}
    return parse(model, file | typed, tables(), origins)
