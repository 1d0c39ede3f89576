"""The demo, as a newcomer runs it."""

import json
import shlex

import pytest

from samfit import demo as module
from samfit.cli import main
from samfit.data.drawn import draw_lesions
from samfit.errors import Interrupted


@pytest.mark.slow
def test_the_demo_shows_adaptation_at_work(tmp_path, capsys):
    demo = tmp_path / "demo"
    assert main(["demo", "--output", str(demo)]) == 0
    said = capsys.readouterr().out
    results = json.loads((demo / "report/results.json").read_text())
    dice = {row["method"]: row["protocols"]["default"]["metrics"]["dice"] for row in results["rows"]}
    assert list(dice) == [None, "decoder", "cad"]
    assert results["images"] == 20
    for method in ("decoder", "cad"):
        assert dice[method]["mean"] >= dice[None]["mean"] + 0.15
        assert dice[method]["to_base"]["verdict"] == "better"
    for method, score in dice.items():
        (line,) = (line for line in said.splitlines() if line.startswith(method or "zero-shot"))
        assert f" {score['mean']:.3f} " in line
    report = demo / "report/report.html"
    assert f"report  {report}: open it in a browser" in said
    assert "<img" in report.read_text()


@pytest.fixture
def short(monkeypatch):
    """Let the demo take one step on few images."""
    monkeypatch.setitem(module.RECIPE, "max_steps", 1)
    monkeypatch.setattr(
        module, "draw_lesions", lambda folder, **more: draw_lesions(folder, training=4, test=2, **more)
    )


def test_a_demo_is_replaced_when_that_is_asked_for_and_nothing_else(tmp_path, short, capsys):
    demo = tmp_path / "demo"
    for flags in ([], ["--overwrite"]):
        assert main(["demo", "--output", str(demo), *flags]) == 0
        rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[:4]]
        assert rows == [
            "2 new images, one click each (truth)",
            "zero-shot: base model, not adapted",
            "decoder",
            "cad",
        ]
        assert sorted(path.name for path in demo.iterdir()) == ["data", "recipe.yaml", "report"] + (
            ["zz-mine.txt"] if flags else []
        )
        (demo / "zz-mine.txt").write_text("mine")
        (demo / "report/runs/sam-tiny-cad-seed0/summary.json").write_text("stale")
    assert main(["demo", "--output", str(demo)]) == 2
    assert f"--output {demo} is not empty" in capsys.readouterr().err


def test_the_recipe_of_the_demo_is_one_that_compare_takes(tmp_path, short, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 0
    report = (tmp_path / "demo/report/results.json").read_bytes()
    recipe = str(tmp_path / "demo/recipe.yaml")
    assert main(["compare", recipe, "--output", str(tmp_path / "demo/report")]) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().err
    assert (tmp_path / "demo/report/results.json").read_bytes() == report


def test_a_folder_that_holds_something_is_not_used_unasked(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path} is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_nothing_is_drawn_or_removed_before_the_packages_of_the_report_are_there(
    tmp_path, monkeypatch, capsys, flags
):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None)
    assert main(["demo", "--output", str(tmp_path), *flags]) == 2
    assert "the report: not installed: matplotlib, jinja2; pip install '.[report]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("recipe", [None, "data: mine\n"])
def test_a_folder_that_is_no_demo_is_not_replaced(tmp_path, capsys, recipe):
    mine = tmp_path / "data/mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe)
    assert main(["demo", "--output", str(tmp_path), "--overwrite"]) == 2
    assert f"--overwrite: {tmp_path} holds no demo" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_a_demo_that_was_stopped_goes_on_with_the_command_that_it_names(tmp_path, short, monkeypatch, capsys):
    def stopped(jobs):
        raise Interrupted("stopped", 143)
        yield

    demo = tmp_path / "my demo"
    with monkeypatch.context() as patch:
        patch.setattr(module, "one_by_one", stopped)
        assert main(["demo", "--output", str(demo)]) == 143
    said = capsys.readouterr().err
    command = f"samfit compare '{demo / 'recipe.yaml'}' --output '{demo / 'report'}'"
    assert f"stopped; go on with '{command}'" in said
    assert main(shlex.split(command)[1:]) == 0
    assert (demo / "report/report.html").is_file()
