"""The recipes that samfit brings: what each says of itself, and that it runs.

A recipe runs with every key it has, on drawn data of its layout, but for `CHANGED`: weights are random, all
sizes an eighth, and a training ends after one step. Of the three recipes of CAD, which differ in their data
only, one runs with its own backbone.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import refuse, succeed
from layouts import draw_layout

from samfit.compare import comparing
from samfit.compare.jobs import Job
from samfit.compare.recipe import PLURALS, read_recipe
from samfit.compare.running import Ended
from samfit.compare.work import do
from samfit.data.sources import SOURCES
from samfit.defaults import in_words
from samfit.metrics.protocols import PROTOCOLS
from samfit.recipes import RECIPES, RecipeRow
from samfit.recipes.about import check_about
from samfit.report.comparison import markdown, published_of

NAMES = [
    *("cad-camo", "cad-cod10k", "cad-istd"),
    *("msa-isic", "msa-refuge", "msa-sizes-isic", "msa-sizes-refuge"),
]
CHANGED = {"weights": "random", "max_steps": 1, "accelerator": "cpu", "checkpointing": "off"}
SMALLER = 8
OF_EVALUATION = ("protocol",)
WITH_SMALL_BACKBONE = ("cad-camo", "cad-istd")
QUICK = "cad-istd"

ABOUT: dict[str, Any] = {
    "summary": "one thing and another",
    "source": "a paper",
    "data": "from nowhere",
    "published": [{"model": "SAM", "source": "a table", "protocol": "default", "figures": {"dice": 0.9}}],
    "departures": ["none is known"],
}


def test_there_are_seven_recipes():
    assert list(RECIPES) == NAMES


@pytest.mark.parametrize("row", RECIPES.values(), ids=RECIPES)
def test_a_recipe_says_where_it_is_from_what_was_printed_and_what_is_otherwise(row):
    assert row.about.source
    assert "arXiv" in row.about.source
    assert "https://" in row.about.data
    assert "--data" in row.about.data
    assert row.settings["dataset"] in SOURCES
    assert len(row.about.departures) >= 8
    assert any("choose" in departure for departure in row.about.departures)
    first = row.settings["protocol"][0]
    assert {one.protocol for one in row.about.published} == {first}
    for printed in row.about.published:
        assert printed.setup != "not known"
        assert printed.claim or list(printed.figures) == list(PROTOCOLS[first].metrics)


@pytest.mark.parametrize("row", RECIPES.values(), ids=RECIPES)
def test_data_is_not_named_and_the_folders_to_expect_are_those_of_the_layout(row):
    assert "data" not in row.settings
    tree = SOURCES[row.settings["dataset"]].tree
    named = [word.strip(",;…_") for word in row.about.data.partition("holds")[2].split()]
    folders = [word for word in named if word[0].isupper() or word.startswith(("train", "test"))]
    assert len(folders) >= 2
    assert [folder for folder in folders if folder not in tree] == []


def test_figures_that_the_guide_repeats_are_no_measurements():
    for name in ("isic", "refuge"):
        backbones = RECIPES[f"msa-{name}"].about.published
        sizes = RECIPES[f"msa-sizes-{name}"].about.published
        assert [one.memory_mb for one in sizes] == [one.memory_mb for one in backbones]
        assert all(one.memory_measured for one in backbones)
        assert not any(one.memory_measured for one in sizes)
        assert sizes[0].figures == backbones[1].figures  # EfficientSAM-S at 1024 px in both


def test_the_recipes_of_cad_differ_in_their_data_and_how_they_are_scored_only():
    own = ("dataset", "group", "protocol")
    shared = [
        {key: value for key, value in RECIPES[name].settings.items() if key not in own}
        for name in NAMES
        if name.startswith("cad-")
    ]
    assert shared == [shared[0]] * 3


def cells_asked_for(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the recipe gives each run, by flag."""
    lists = {key: value for key, value in settings.items() if key in PLURALS}
    rest = {key: value for key, value in settings.items() if key not in (*PLURALS, *OF_EVALUATION)}
    return [
        rest | {PLURALS[key]: value for key, value in zip(lists, chosen, strict=True)}
        for chosen in itertools.product(*lists.values())
    ]


@pytest.mark.parametrize("row", RECIPES.values(), ids=RECIPES)
def test_every_run_of_a_recipe_fits_at_its_true_size(row, tmp_path):
    recipe = read_recipe(Path(row.name), tmp_path, Path("data"))
    given = [in_words(cell.settings) for cell in recipe.cells]
    asked = cells_asked_for(row.settings)
    assert len(given) == len(asked) == 3
    for one in asked:
        assert any(one.items() <= (cell | {"classes": list(cell["classes"] or ())}).items() for cell in given)
    assert recipe.evaluation_of(tmp_path).protocol == tuple(row.settings["protocol"])
    assert {cell["data"] for cell in given} == {"data"}


def smaller(row: RecipeRow) -> dict[str, Any]:
    """Return the recipe as it is run here."""
    values = yaml.safe_load(Path(row.path).read_text(encoding="utf-8"))
    for key in ("image_size", "loss_size"):
        if key in values:
            values[key] //= SMALLER
    if "image_sizes" in values:
        values["image_sizes"] = [size // SMALLER for size in values["image_sizes"]]
    if row.name in WITH_SMALL_BACKBONE:
        values["backbone"] = "sam-tiny"
    return values | CHANGED


def in_this_process(jobs: Sequence[Job], places: object) -> Iterator[Ended]:
    """Do jobs as `run_here` does, without a process for each."""
    for job in jobs:
        do(job)
        yield Ended(job, None)


@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_recipe_runs_for_one_step_on_data_of_its_layout(name, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "run_here", in_this_process)
    row = RECIPES[name]
    draw_layout(row.settings["dataset"], tmp_path / "data")
    values = smaller(row)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    report = tmp_path / "report"
    succeed("compare", path, "--data", tmp_path / "data", "--output", report)
    results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    assert [run["error"] for run in results["runs"]] == [None] * 5

    configs = [
        yaml.safe_load((report / "runs" / run["name"] / "config.yaml").read_text(encoding="utf-8"))
        for run in results["runs"]
        if run["kind"] == "run"
    ]
    about = values.pop("about")
    for asked in cells_asked_for(values):
        assert any(all(config[key] == value for key, value in asked.items()) for config in configs)
    assert [run["steps"] for run in results["runs"] if run["kind"] != "mean-mask"] == [1] * 4
    assert list(results["protocols"]) == row.settings["protocol"]

    page = (report / "report.html").read_text(encoding="utf-8")
    for printed in about["published"]:
        assert f"<td>{printed['model']}</td>" in page
        for figure in printed.get("figures", {}).values():
            assert f"<td>{figure}</td>" in page
    tables = report / "tables"
    shown = published_of(results, row.settings["protocol"][0])
    assert shown is not None
    assert [path.name for path in sorted(tables.glob("*-published.*"))] == [
        f"{row.settings['protocol'][0]}-published.{kind}" for kind in ("md", "tex")
    ]
    assert (tables / f"{row.settings['protocol'][0]}-published.md").read_text("utf-8") == markdown(shown)
    assert page.count("<li>") == len(about["departures"])


def test_published_figures_are_shown_by_their_protocol_as_what_they_are():
    about = asdict(RECIPES["msa-sizes-isic"].about)
    results = {"recipe": {"about": about}}
    assert published_of(results, "default") is None
    assert published_of({"recipe": {}}, "msa-guide") is None
    table = published_of(results, "msa-guide")
    assert table is not None
    assert table.columns[:3] == ["published, not measured here; protocol msa-guide", "Dice", "IoU"]
    memory = table.columns.index("memory as printed, MB")
    assert [(row[0], row[1], row[memory]) for row in table.rows] == [
        ("EfficientSAM-S at 1024 px", "0.9091", "22427 (not a measurement)"),
        ("EfficientSAM-S at 512 px", "0.9134", "21275 (not a measurement)"),
        ("EfficientSAM-S at 256 px", "0.908", "15713 (not a measurement)"),
    ]
    claim, printed = published_of({"recipe": {"about": asdict(RECIPES["cad-istd"].about)}}, "istd").rows
    assert claim[1] == "–"
    assert '"less than half of the GPU memory of SAM-Adapter, competitive accuracy"' in claim[4]
    assert printed[:3] == ["SAM-Adapter on SAM ViT-H", "0.0143", "–"]


def test_a_recipe_is_found_by_its_name_and_asks_for_its_data(tmp_path):
    said = refuse("compare", "cad-cod10k", "--output", tmp_path / "report")
    assert "data (in " in said
    assert "is needed here or as --data" in said
    assert "COD10K-v3 from https://" in said  # what to download
    said = refuse("compare", "cad-cod10", "--output", tmp_path / "report")
    assert "did you mean 'cad-cod10k'?" in said
    said = refuse("compare", "cad-cod10k", "--data", tmp_path / "none", "--output", tmp_path / "report")
    assert f"{tmp_path / 'none'}: there is no such folder" in said
    assert not (tmp_path / "report").exists()


def test_data_of_the_command_line_goes_before_that_of_the_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: first\nbackbone: sam-tiny\nweights: random\n", encoding="utf-8")
    assert read_recipe(path, tmp_path).cells[0].settings.data == Path("first")
    recipe = read_recipe(path, tmp_path, Path("second"))
    assert recipe.cells[0].settings.data == Path("second")
    assert recipe.values["data"] == "second"


def test_recipes_are_listed_with_what_they_run_and_need():
    shown = " ".join(succeed("list", "recipes").out.split())
    assert "cad, sam-adapter, decoder on sam-vit-b at 1024 px" in shown
    assert "medical-adapter on efficientsam-s at 1024, 512, 256 px" in shown
    listed = json.loads(succeed("list", "recipes", "--json").out)
    assert [row["name"] for row in listed] == NAMES
    for row in listed:
        assert row["summary"] == row["about"]["summary"]
        assert Path(row["path"]).is_file()
        assert row["settings"]["protocol"]


def test_a_recipe_of_ones_own_may_say_the_same_and_faults_of_it_are_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    start = "data: lesions\nbackbone: sam-tiny\nweights: random\n"
    path.write_text(start + yaml.safe_dump({"about": ABOUT}), encoding="utf-8")
    assert read_recipe(path, tmp_path).values["about"]["published"][0]["setup"] == "not known"
    path.write_text(start + yaml.safe_dump({"about": {**ABOUT, "sauce": "x"}}), encoding="utf-8")
    said = refuse("compare", path, "--output", tmp_path / "report")
    assert f"about (in {path}): sauce: Unexpected keyword argument" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "defualt"}, "did you mean 'default'?"),
        ({"figures": {"mae": 0.1}}, "figures: unknown metric of default 'mae'"),
        ({"figures": {"dice": 91.2}}, "published 1, figures, dice: Input should be less than or equal to 1"),
        ({"figures": {}}, "says nothing; expected figures, a claim or memory_mb"),
        ({"memory_mb": 0}, "published 1, memory_mb: Input should be greater than 0"),
        ({"model": " "}, "published 1, model: String should have at least 1 character"),
    ],
)
def test_a_published_figure_must_be_one_of_its_protocol(change, message):
    published = [ABOUT["published"][0] | change]
    about, faults = check_about(ABOUT | {"published": published})
    assert about is None
    assert len(faults) == 1
    assert faults[0].startswith("published 1")
    assert message in faults[0]
