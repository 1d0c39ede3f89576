"""The scripts that make the figures of the docs, on drawn data, and the docs held to the figures."""

import json
import shutil
import sys

import pytest
from cli_support import TEST, TRAINING, drawn_data
from support import ROOT

from samfit.methods import METHODS

sys.path.insert(0, str(ROOT / "benchmarks"))

import compare_methods
import demo
import step_times
import tables


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Result files of one method with two seeds."""
    folder = tmp_path_factory.mktemp("results")
    data = drawn_data(tmp_path_factory)
    words = f"--method decoder --name drawn --data {data} --dataset isic2016 --epochs 1 --seeds 0 1"
    compare_methods.main([*words.split(), "--results", str(folder / "methods")])
    step_times.main(["--rounds", "1", "--result", str(folder / "step_times.json")])
    return folder


def test_every_method_is_timed(results):
    times = json.loads((results / "step_times.json").read_text())["cpu_seconds"]
    assert times.keys() == METHODS.keys()
    assert all(seconds > 0 for seconds in times.values())


def test_a_result_file_says_how_it_was_made_and_what_came_out(results):
    result = json.loads((results / "methods" / "drawn-decoder.json").read_text())
    assert {"how", "versions", "machine"} <= result.keys()
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    for run in result["runs"]:
        assert 0 <= run["iou"] <= run["dice"] <= 1
        assert run["images"]["train"] + run["images"]["validation"] == TRAINING
        assert run["images"]["test"] == TEST
        assert run["epochs"] == 1
        assert (run["protocol"], run["prompt"]) == ("default", "full-box")
        assert run["trained_parameters"] > 0


def test_a_table_shows_mean_and_spread_of_what_the_files_hold(results):
    for method, dices in {"decoder": (0.5, 0.7), "cad": (0.8, 0.8)}.items():
        result = json.loads((results / "methods" / "drawn-decoder.json").read_text())
        for run, dice in zip(result["runs"], dices, strict=True):
            run |= {"dice": dice, "trained_parameters": 12345}
        path = results / "made" / "methods" / f"drawn-{method}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result | {"method": method}))
    shutil.copy(results / "step_times.json", results / "made")
    lines = tables.render("<!-- table: methods -->old<!-- end -->", results / "made").splitlines()
    assert "old" not in lines
    assert any(line.startswith("| protocol default, prompt full-box | Dice | ") for line in lines)
    rows = [line.split(" | ") for line in lines if line.startswith("| `")]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("| `decoder`", "0.600 ± 0.141", "12,345"),
        ("| `cad`", "0.800 ± 0.000", "12,345"),
    ]


def test_the_tables_of_the_docs_are_what_the_result_files_say():
    marked = [path for path in tables.PAGES if "<!-- table: " in path.read_text()]
    assert ROOT / "README.md" in marked
    for path in marked:
        assert tables.render(path.read_text()) == path.read_text(), "run python benchmarks/tables.py"


def test_the_scores_of_the_demo_stand_in_a_table_with_what_they_gained(tmp_path):
    def row(method, dice, change):
        found = {"mean": dice, "low": dice - 0.1, "high": dice + 0.1, "to_base": change}
        scores = {"default": {"metrics": {"dice": found}}}
        return {"method": method, "trained_parameters": 1234, "protocols": scores}

    gained = {"mean": 0.25, "low": -0.125, "high": 0.5}
    rows = [row(None, 0.5, None), row("cad", 0.75, gained)]
    results = {"images": 20, "intervals": "95 %", "protocols": {"default": "as it is taken"}, "rows": rows}
    (tmp_path / "demo.json").write_text(json.dumps(demo.scores_of(results)))
    lines = tables.render("<!-- table: demo --><!-- end -->", tmp_path).splitlines()
    assert "| 20 new images | Dice | minus zero-shot | trained parameters |" in lines
    assert "| zero-shot | 0.50 (0.40 to 0.60) | – | 1,234 |" in lines
    assert "| `cad` | 0.75 (0.65 to 0.85) | +0.25 (-0.12 to +0.50) | 1,234 |" in lines
    assert any(line.startswith("Measured on ") for line in lines)
