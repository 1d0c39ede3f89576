"""The generated reference and the page of errors: up to date, complete, and true to the code's own words."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support import ROOT

import samfit
from samfit import errors
from samfit.cli import COMMANDS, group
from samfit.cli.listing import TABLES

REFERENCE = ROOT / "docs/reference"
SOURCE = Path(samfit.__file__).parent
ERRORS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.SamfitError)
]


@pytest.fixture(scope="module")
def generator():
    """The script that makes the reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section_of(page: str, heading: str) -> str:
    """Return what stands below a heading of the second level, up to the next one."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"{page} has no section {heading}"
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_reference_is_what_the_code_says(generator):
    assert generator.main(["--check"]) == 0, "make docs writes it anew"


def test_a_page_that_is_not_what_the_code_says_is_seen_and_mended(generator, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(generator, "FOLDER", tmp_path)
    assert generator.main([]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in REFERENCE.iterdir()
    )
    assert generator.main(["--check"]) == 0
    (tmp_path / "names.md").write_text("an older version")
    (tmp_path / "python.md").unlink()
    capsys.readouterr()
    assert generator.main(["--check"]) == 1
    assert capsys.readouterr().out == "not as the code says: names.md, python.md\n"
    assert (tmp_path / "names.md").read_text() == "an older version"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_every_option(name):
    command = group.get_command(click.Context(group), name)
    assert command is not None
    section = section_of("commands.md", f"`samfit {name}`")
    shown = re.findall(r"^\| `(?:-\w, )?(--[\w-]+)", section, re.MULTILINE)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert sorted(shown) == sorted(option.opts[0] for option in options)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert str(parameter.metavar) in section


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_every_table_has_its_line(table):
    section = section_of("names.md", table.capitalize())
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == list(TABLES[table])


@pytest.mark.parametrize("name", [name for name in samfit.__all__ if not name.startswith("__")])
def test_every_public_name_has_its_place(name):
    value = getattr(samfit, name)
    if value in ERRORS:
        assert f"\n| `samfit.{name}` | " in section_of("python.md", "Errors")
    else:
        assert section_of("python.md", f"`samfit.{name}`").strip()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_public_and_in_the_tree(error):
    assert getattr(samfit, error.__name__) is error
    assert re.search(rf"\b{error.__name__}\b", section_of("python.md", "Errors").split("\n|")[0])


def messages_of(source: Path) -> set[str]:
    """Return every text in the source, `…` where a value is put in."""
    found = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_on_the_page_of_errors_is_one_of_the_code():
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    shown = re.findall(r"^### `(?:samfit: error: )?(.+)`$", page, re.MULTILINE)
    assert len(shown) > 25
    messages = messages_of(SOURCE)
    patterns = {text: ".*".join(map(re.escape, text.split("…"))) for text in shown}
    unknown = [
        text
        for text, pattern in patterns.items()
        if not any(re.search(pattern, message, re.DOTALL) for message in messages)
    ]
    assert unknown == []


def test_the_page_of_errors_has_every_kind_that_the_command_line_shows():
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    last = [error for error in ERRORS if not error.__subclasses__()]
    assert [error.__name__ for error in last if f"`{error.__name__}`" not in page] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_notebook_runs(tmp_path):
    docs, site = ROOT / "docs", tmp_path / "site"
    strict = ("--builder", "html", "--fail-on-warning", "--nitpicky", "--quiet")
    words = [sys.executable, "-m", "sphinx", *strict, "--doctree-dir", tmp_path / "trees", docs, site]
    process = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr
    pages = {
        path.relative_to(docs).with_suffix(".html")
        for path in docs.rglob("*.md")
        if "_build" not in str(path)
    }
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}
    notebook = (site / "notebooks/first-steps.html").read_text(encoding="utf-8")
    assert "adapted: Dice 0." in notebook
    assert notebook.count('src="../_images/') == 3
