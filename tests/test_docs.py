"""The words around the code: every command and program in them runs, and they name and say what the code has.

What is run: in `sh` blocks the lines that begin with `samfit`, and `python` blocks, each page from top to
bottom. Other lines of `sh` blocks are for the reader's own shell (make, pip). Commands in `text` blocks need
a download, data or devices that are not here: only their flags and values are checked. A block whose fence
names a file (`yaml settings.yaml`) is what the text assumes that file to hold.

One thing is not as the reader has it: a training of sam-tiny that does not say how long takes one epoch.
"""

import csv
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml
from cli_support import succeed
from support import ROOT

import samfit
from samfit.backbones import BACKBONES
from samfit.cli import COMMANDS, group
from samfit.cli.options import read_settings
from samfit.data.drawn import draw_lesions
from samfit.data.sources import SOURCES
from samfit.declare import Settings, flag, words_of, written
from samfit.defaults import resolve
from samfit.losses import LOSSES
from samfit.methods import METHODS, owners
from samfit.metrics import METRICS
from samfit.metrics.protocols import PROTOCOLS
from samfit.recipes import RECIPES
from samfit.runs import RunFolder
from samfit.settings import (
    CompareSettings,
    DataSettings,
    EvaluateSettings,
    ExportSettings,
    ImportSettings,
    MergeSettings,
    PlanSettings,
    PredictSettings,
    TrainSettings,
)

README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
"""Pages that docs/reference.py makes."""
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]
"""Pages that people write."""
SLOW_PAGES = ("comparing.md",)
"""Pages whose commands take minutes."""
MARKDOWN = [
    *PAGES,
    *REFERENCE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "tests/golden/README.md",
    ROOT / "training/MODEL_CARD.md",
]
SETTINGS: dict[str, type[Settings]] = {
    "train": TrainSettings,
    "plan": PlanSettings,
    "evaluate": EvaluateSettings,
    "predict": PredictSettings,
    "doctor": DataSettings,
    "compare": CompareSettings,
    "merge": MergeSettings,
    "import": ImportSettings,
    "export": ExportSettings,
}
SIZE = (96, 72)
"""Width and height of drawn images; the prompts in the docs lie inside."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    file: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Return the arguments of each line that begins with `samfit`, without that word."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("samfit ")]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = read(page)
    fenced = re.finditer(r"^```(\w+|{\w+})(?: (\S+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2] or "", match[3])
        for match in fenced
    ]
    assert 2 * len(found) == text.count("```"), f"{page}: a fence is not closed or has no language"
    return found


def rows_of(page: str) -> list[dict[str, str]]:
    """Return the rows of all tables of a page as column to cell, without marks of code."""
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    for line in read(ROOT / page).splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif set(line) - set("| -"):
            rows.append(dict(zip(columns, cells, strict=True)))
    return rows


@pytest.fixture(scope="module")
def documented() -> str:
    """All that stands in code marks, in blocks or in lines, of README and docs."""
    text = "\n".join(map(read, PAGES))
    return "\n".join(match[0] for match in re.finditer(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def is_named(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def make_assumed_files(folder: Path) -> None:
    """Make what a reader of the README has: `lesions`, `new-images` and `photo.jpg`."""
    draw_lesions(folder / "isic", training=6, test=6, size=SIZE)
    for split, part in (("train", "Training"), ("test", "Test")):
        for kind, source in (("images", "Data"), ("masks", "GroundTruth")):
            target = folder / "lesions" / split / kind
            target.mkdir(parents=True)
            for file in (folder / "isic" / f"ISBI2016_ISIC_Part1_{part}_{source}").iterdir():
                shutil.copy(file, target / file.name.replace("_Segmentation", ""))
    first, second, *_ = sorted((folder / "lesions/test/images").iterdir())
    (folder / "new-images").mkdir()
    shutil.copy(first, folder / "new-images/first.jpg")
    shutil.copy(second, folder / "new-images/second.jpg")
    shutil.copy(first, folder / "photo.jpg")
    shutil.rmtree(folder / "isic")


def run_page(page: Path) -> int:
    """Run every command and program of a page in the working folder; return how many there were."""
    count = 0
    for block in blocks_of(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        try:
            if block.language == "sh":
                for arguments in block.commands:
                    succeed(*arguments)
                    count += 1
            elif block.language == "python":
                exec(compile(block.text, str(block), "exec"), {})
                count += 1
        except (Exception, SystemExit) as error:
            error.add_note(f"in {block}")
            raise
    return count


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """Return a function that gives a page a folder to run in, with what its reader has, and goes there."""
    monkeypatch.setitem(BACKBONES["sam-tiny"].defaults, "epochs", 1)
    start = tmp_path / "README.md"
    start.mkdir()
    make_assumed_files(start)

    def enter(page: Path) -> Path:
        folder = tmp_path / page.name
        if page != README:  # every page goes on from the README
            shutil.copytree(start, folder)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)  # programs of a page import one another
        return folder

    return enter


def test_every_command_and_program_runs(readers_folder):
    count = {}
    for page in PAGES:
        if page.name not in SLOW_PAGES:
            folder = readers_folder(page)
            count[page.name] = run_page(page)
            if page == README:
                check_that_contents_are_named(folder / "run")
    assert {name: blocks for name, blocks in count.items() if blocks} == {
        "README.md": 4,
        "checkpoints.md": 3,
        "command-line.md": 3,
        "continue.md": 4,
        "data.md": 6,
        "evaluation.md": 9,
        "fitting.md": 1,
        "how-many-images.md": 5,
        "methods.md": 2,
        "one-folder.md": 4,
        "other-computer.md": 3,
        "other-formats.md": 2,
        "recipes.md": 1,
        "thin-objects.md": 2,
        "training.md": 6,
        "transformers.md": 3,
        "tutorial.md": 5,
        "two-classes.md": 10,
        "weights.md": 2,
        "without-prompts.md": 4,
        "zero-one-masks.md": 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PAGES)
def test_every_command_and_program_of_a_long_page_runs(readers_folder, name):
    readers_folder(DOCS / name)
    assert run_page(DOCS / name) > 0


def check_that_contents_are_named(run: Path) -> None:
    """Check that the docs name every key of the summaries and every column of the tables of a run."""
    for page, files in {
        "docs/training.md": ("summary.json", "metrics.csv"),
        "docs/evaluation.md": ("evaluation/summary.json", "evaluation/per_image.csv"),
    }.items():
        text = read(ROOT / page)
        for name in files:
            content = (run / name).read_text(encoding="utf-8")
            is_table = name.endswith(".csv")
            keys = next(csv.reader(content.splitlines())) if is_table else list(json.loads(content))
            assert [key for key in keys if f"`{key}`" not in text] == [], f"{name} in {page}"


def command_of(name: str) -> click.Command:
    return import_module(f"samfit.cli.{COMMANDS[name].module}").command


def check(arguments: list[str]) -> None:
    """Check that the flags and values of a command exist, without running it."""
    name, *rest = arguments
    given = dict(command_of(name).make_context(name, rest).params)
    fields = SETTINGS[name].model_fields
    settings = read_settings(SETTINGS[name], {key: value for key, value in given.items() if key in fields})
    if isinstance(settings, TrainSettings):
        resolve(settings)


def test_commands_that_cannot_be_run_here_are_right():
    commands = [
        arguments
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "text"
        for arguments in block.commands
    ]
    for arguments in commands:
        check(arguments)
    assert len(commands) == 23


def test_programs_that_need_other_packages_are_python():
    programs = [
        block
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "text" and block.text.startswith(("import ", "from "))
    ]
    for block in programs:
        compile(block.text, f"{block.page}:{block.line}", "exec")
    assert len(programs) == 2


def test_a_wrong_flag_in_a_text_block_would_be_seen():
    with pytest.raises(samfit.SettingError):
        check(["train", "--data", "lesions", "--output", "run", "--method", "cda"])
    with pytest.raises(Exception, match="--colour"):
        check(["train", "--colour", "red"])


def test_every_command_is_named(documented):
    assert [name for name in COMMANDS if not is_named(f"samfit {name}", documented)] == []


@pytest.mark.parametrize(
    "table",
    [BACKBONES, METHODS, SOURCES, LOSSES, METRICS, PROTOCOLS, RECIPES],
    ids=lambda table: next(iter(table)),
)
def test_every_row_of_a_table_is_named(documented, table):
    assert [name for name in table if not is_named(name, documented)] == []


@pytest.mark.parametrize("command", [group, *map(command_of, COMMANDS)], ids=lambda command: command.name)
def test_every_flag_is_named(documented, command):
    flags = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert flags
    assert [option for option in flags if not is_named(option, documented)] == []


@pytest.mark.parametrize("model", SETTINGS.values(), ids=lambda model: model.__name__)
def test_every_word_that_a_setting_may_be_is_named(documented, model):
    words = {word for field in model.model_fields for word in words_of(model, field)}
    assert sorted(word for word in words if not is_named(word, documented)) == []


@pytest.mark.parametrize("row", SOURCES.values(), ids=lambda row: row.name)
def test_the_tree_of_every_layout_is_shown(row):
    assert f"```text\n{row.tree}\n```" in read(ROOT / "docs/data.md")


def test_the_defaults_of_methods_are_those_of_the_table():
    shown = {row["setting"]: row for row in rows_of("docs/training.md") if "setting" in row}
    for method in METHODS.values():
        expected = {flag(field): str(value) for field, value in method.defaults.items()}
        assert {name: row[method.name] for name, row in shown.items()} == expected


def test_the_options_of_methods_are_those_of_the_rows():
    shown = {row["option"].split()[0]: row for row in rows_of("docs/training.md") if "option" in row}
    options = {field: row.options for row in METHODS.values() for field in row.options.model_fields}
    assert shown.keys() == set(map(flag, options))
    words = {None: "all", False: "off"}
    for field, model in options.items():
        default = model.model_fields[field].default
        row = shown[flag(field)]
        assert row["of"] == ", ".join(owners(field))
        assert row["default"] == words.get(default, written(default))


def test_the_facts_of_backbones_are_those_of_the_cards():
    shown = {row["backbone"]: row for row in rows_of("docs/training.md") if "backbone" in row}
    assert shown == {
        card.name: {
            "backbone": card.name,
            "--image-size": str(card.image_size),
            "multiple of": str(card.patch),
            "--fit": card.fit,
            "own defaults": ", ".join(f"{flag(field)} {value}" for field, value in card.defaults.items()),
        }
        for card in BACKBONES.values()
    }


def test_the_published_weights_are_those_of_the_cards():
    shown = {row["backbone"]: row for row in rows_of("docs/weights.md") if "SHA-256" in row}
    assert list(shown) == list(BACKBONES)
    for card in BACKBONES.values():
        source = card.weights.address or "../training/MODEL_CARD.md"
        assert shown[card.name] == {
            "backbone": card.name,
            "file": f"[{card.weights.name}]({source})",
            "bytes": str(card.weights.size or "–"),
            "SHA-256": card.weights.sha256 or "–",
            "licence": card.weights.licence,
        }


def test_the_protocols_are_those_of_the_table():
    shown = [row for row in rows_of("docs/evaluation.md") if "protocol" in row]
    assert shown == [{"protocol": row.name, **row.traits()} for row in PROTOCOLS.values()]


def test_the_metrics_are_those_of_the_table():
    shown = [row for row in rows_of("docs/evaluation.md") if "metric" in row]
    assert shown == [
        {
            "metric": row.name,
            "what it is": row.summary,
            "best": row.best,
            "without foreground in the truth": row.empty,
            "paper": row.paper,
        }
        for row in METRICS.values()
    ]


def test_everything_in_a_run_folder_is_named(documented):
    run = RunFolder(Path("run"))
    properties = [name for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    names = [getattr(run, name).name for name in properties]
    assert {"config.yaml", "adapter.safetensors", "evaluation"} <= set(names)
    assert [name for name in names if not is_named(name, documented)] == []


def test_relative_links_lead_somewhere():
    links = [
        (page, target)
        for page in MARKDOWN
        for target in re.findall(r"\]\(([^)]+)\)", read(page))
        if not target.startswith("https://")
    ]
    assert len(links) > 20
    for page, target in links:
        path, _, anchor = target.partition("#")
        place = page.parent / path
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(place), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_the_index_leads_to_every_page():
    index = read(DOCS / "index.md")
    places = [page.relative_to(DOCS).as_posix() for page in (*PAGES[1:], *REFERENCE)]
    places += [page.relative_to(DOCS).as_posix() for page in DOCS.glob("notebooks/*.ipynb")]
    assert [place for place in places if place != "index.md" and f"({place})" not in index] == []


@pytest.mark.parametrize("page", ["departures.md", "evaluation.md"])
def test_every_departure_names_a_test_that_there_is(page):
    rows = [row for row in rows_of(f"docs/{page}") if "published" in row]
    assert len(rows) > 10
    for row in rows:
        file, _, name = row["test"].partition("::")
        assert re.search(rf"^def {name}\(", read(ROOT / file), re.MULTILINE), row["test"]


def test_the_newest_version_of_the_changelog_is_this_one():
    newest = re.search(r"^## (\S+)", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == samfit.__version__


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert (citation["title"], citation["version"]) == ("samfit", samfit.__version__)
    assert citation["license"] == "Apache-2.0"
