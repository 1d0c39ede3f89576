"""Make the pages of docs/reference from the tables, flags and docstrings of the package.

python docs/reference.py          write them
python docs/reference.py --check  end with status 1 if a page is not what the code says
"""

import argparse
import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import samfit
from samfit import errors
from samfit.cli import COMMANDS, group
from samfit.cli.listing import TABLES
from samfit.cli.options import SettingsCommand
from samfit.declare import Settings

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/reference.py; make docs writes it anew -->"
BESIDE = (
    "samfit.engine.loaded.LoadedRun",
    "samfit.methods.adapted.AdaptedModel",
    "samfit.compare.comparing.compare",
    "samfit.metrics.intervals.bootstrap_interval",
    "samfit.metrics.intervals.paired_difference",
    "samfit.metrics.intervals.spread_over_seeds",
    "samfit.testing.check_method",
    "samfit.testing.small_backbone",
    "samfit.testing.adapter_names",
)
"""What the pages use beside the names of `samfit` itself."""


def commands_page() -> str:
    """Return every command with every argument and flag, as `--help` says them."""
    every = "Every command takes `-h` and `--help`, and shows what stands here."
    parts = ["# Commands", MADE, _help(group), every, _options(group, "samfit")]
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        parts += [f"## `samfit {name}`", _help(command), _options(command, f"samfit {name}")]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _options(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path)
    usage = f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```"
    if isinstance(command, SettingsCommand):
        sections = command.sections(context)
        records = [record for title, section in sections if title != "Help" for record in section]
    else:
        records = filter(None, (parameter.get_help_record(context) for parameter in command.params))
    lines = [[f"`{option}`", text] for option, text in records]
    return f"{usage}\n\n{_table(['option', 'what it is'], lines)}"


def names_page() -> str:
    """Return every row of every table that `samfit list` shows."""
    parts = ["# Names", MADE, "What `samfit list` shows; `samfit list NAME --json` prints every trait."]
    for title, rows in TABLES.items():
        lines = [[f"`{row.name}`", row.summary] for row in rows.values()]
        parts += [f"## {title.capitalize()}", _table(["name", "what it is"], lines)]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """Return every public name of the package, and what stands beside them, with signature and docstring."""
    public = [f"samfit.{name}" for name in samfit.__all__ if not name.startswith("__")]
    raised = [path for path in public if _is_error(_named(path))]
    lines = [[f"`{path}`", _in_one_line(_named(path))] for path in raised]
    return (
        "\n\n".join(
            [
                "# Python",
                MADE,
                "The names of `samfit` itself, its errors, and then what other pages use beside them.",
                *(_described(path) for path in public if path not in raised),
                "## Errors",
                inspect.cleandoc(errors.__doc__ or ""),
                _table(["error", "what it is"], lines),
                *map(_described, BESIDE),
            ]
        )
        + "\n"
    )


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, errors.SamfitError)


def _in_one_line(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split())


def _described(path: str) -> str:
    return "\n\n".join([f"## `{path}`", *_words(_named(path))])


def _words(value: Any) -> Iterable[str]:
    """Yield what is said of a function, a class or a table."""
    if isinstance(value, Mapping):
        kind = type(next(iter(value.values()))).__name__
        yield f"A `{kind}` by name: {', '.join(f'`{key}`' for key in value)}."
        return
    if inspect.isfunction(value):
        yield _signature(value)
    yield inspect.getdoc(value) or ""
    if inspect.isclass(value) and issubclass(value, Settings):
        yield "Its fields are the options of that [command](commands.md), with `_` for `-`."
    elif inspect.isclass(value):
        for name, function in vars(value).items():
            if inspect.isfunction(function) and not name.startswith("_"):
                yield _signature(function)
                yield inspect.getdoc(function) or ""


def _signature(function: Callable[..., Any]) -> str:
    """Return what stands before the docstring, as it is written in the source."""
    source = inspect.cleandoc("\n" + inspect.getsource(function))
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    lines = source.splitlines()[definition.lineno - 1 : definition.body[0].lineno - 1]
    return "\n".join(["```python", *lines, "```"])


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "names.md": names_page,
    "python.md": python_page,
}
"""File in docs/reference to what makes it."""


def main(arguments: list[str] | None = None) -> int:
    """Write or check every page of the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    made = {FOLDER / name: page() for name, page in PAGES.items()}
    stale = [path for path, page in made.items() if not path.is_file() or path.read_text("utf-8") != page]
    for path in [] if check else stale:
        path.write_text(made[path], encoding="utf-8")
    names = ", ".join(path.name for path in stale) or "none"
    print(f"{'not as the code says' if check else 'written'}: {names}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
