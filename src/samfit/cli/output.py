"""What commands print to stdout: tables for people, JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table

_WIDTH_OF_FILES = 110
"""Characters a line where stdout is no terminal, so that a table in a file does not depend on a window."""


def print_table(table: Table) -> None:
    """Print a table to stdout, in colour only on a terminal and never with NO_COLOR set."""
    width = None if Console().is_terminal else _WIDTH_OF_FILES
    # Names of files and classes are shown as they are: no part of them is markup.
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def print_json(content: Any) -> None:
    """Print JSON to stdout; characters beyond ASCII are escaped, which every terminal and pipe can take."""
    click.echo(json.dumps(content, indent=2))


def with_lines(text: str, lines: Sequence[tuple[str, str]]) -> Group | str:
    """Return what a cell of a table shows: a text, and below it lines of a word and what it means."""
    if not lines:  # an empty grid would show as an empty line
        return text
    grid = Table.grid(padding=(0, 2, 0, 0))
    for word, meaning in lines:
        grid.add_row(word, meaning)
    return Group(text, grid)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table with these column heads, drawn without a frame."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
