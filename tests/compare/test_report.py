"""Tables, curves and page of results that nobody trained for."""

import csv
import re

import pytest
from compare_support import IMAGES, grid, results_of, write_run
from PIL import Image

from samfit.compare.results import collect
from samfit.report import page
from samfit.report.comparison import (
    Table,
    all_figures,
    latex,
    markdown,
    short_table_of,
    table_of,
    write_report,
)
from samfit.report.curves import curves_of
from samfit.report.page import page_of
from samfit.report.panels import panel_path


def test_no_character_of_a_cell_breaks_a_table_of_latex():
    table = Table([r"a\b {c} ~ ^"], [["5 % & _x_ #1 $2"]])
    head, cell = latex(table).splitlines()[2], latex(table).splitlines()[4]
    assert head == r"a\textbackslash{}b \{c\} \textasciitilde{} \textasciicircum{} \\"
    assert cell == r"5 \% \& \_x\_ \#1 \$2 \\"


def test_no_cell_breaks_a_line_of_markdown_or_makes_another_column():
    assert markdown(Table(["a"], [["one\n\ntwo | three"]])).splitlines()[2] == r"| one two \| three |"


def test_the_short_table_has_the_difference_to_the_first_method(tmp_path):
    results = results_of(grid(tmp_path))
    columns = short_table_of(results, "default").columns
    assert columns == ["protocol default", "prompt", "Dice (95 % interval)", "Dice minus first method"]


def test_a_difference_over_fewer_seeds_than_the_row_has_says_which(tmp_path):
    results = results_of(grid(tmp_path, seeds=(0, 1)), failed=["sam-tiny-decoder-seed1"])
    table = table_of(results, "default")
    told = {row[0]: row[table.columns.index("Dice minus first method")] for row in table.rows}
    assert told["cad on sam-tiny, 64 px"].endswith("; only of seed 0")
    assert "only" not in told["mean training mask"]
    figures = csv.DictReader(all_figures(results, "default").splitlines())
    (cad,) = (one for one in figures if (one["method"], one["metric"]) == ("cad", "dice"))
    assert (cad["to_first_seeds"], cad["to_base_seeds"]) == ("0", "0 1")


def test_a_difference_without_an_interval_is_shown_as_a_tie(tmp_path):
    jobs = grid(tmp_path)
    results_of(jobs)
    table = table_of(collect({}, jobs, {}, len(IMAGES), [*"aabbccddeeee"]), "default")
    told = {row[0]: row[table.columns.index("Dice minus first method")] for row in table.rows}
    assert re.fullmatch(r"[+-]0\.\d{4}: tie", told["cad on sam-tiny, 64 px"])


@pytest.mark.parametrize(
    ("protocols", "score"),
    [(("cod", "default"), "Dice (default)"), (("istd", "cad"), "Dice (cad)"), (("cod",), "S-measure (cod)")],
)
def test_memory_stands_beside_dice_where_a_protocol_has_it(tmp_path, protocols, score):
    results = results_of(grid(tmp_path, methods=("decoder",), protocols=protocols))
    assert f"memory and {score}" in curves_of(results)["memory"]


def test_tables_of_an_earlier_recipe_are_taken_away_and_nothing_else(tmp_path):
    jobs = grid(tmp_path / "runs", protocols=("default", "cad"))
    write_report(tmp_path, results_of(jobs, failed=[job.name for job in jobs]))
    tables = tmp_path / "tables"
    for name in ("cad-published.md", "mine.md"):
        (tables / name).write_text("| |\n")
    jobs = grid(tmp_path / "runs")
    write_report(tmp_path, results_of(jobs, failed=[job.name for job in jobs]))
    assert sorted(path.name for path in tables.iterdir()) == [
        *("default.csv", "default.md", "default.tex", "mine.md")
    ]


def pictures_in(jobs):
    """Write the pictures that a page shows of every image of every job."""
    for job in jobs:
        for number in range(1, len(IMAGES) + 1):
            for panel in ("image", "truth", "adapted", "unadapted", "errors"):
                path = panel_path(job.folder / "evaluation/pictures", number, panel)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (1, 1)).save(path)


@pytest.mark.parametrize(
    ("most", "shown"), [(6 * 12, range(12)), (6 * 12 - 1, range(0, 12, 2)), (24, (0, 3, 6, 9))]
)
def test_a_page_of_too_many_pictures_shows_a_sample_and_says_so(tmp_path, monkeypatch, most, shown):
    monkeypatch.setattr(page, "PICTURES", most)
    jobs = grid(tmp_path, methods=("decoder",))
    pictures_in(jobs)
    text = page_of(results_of(jobs), tmp_path, {})
    examples, images = text[text.index('id="examples"') :].split('id="images"')
    assert re.findall(r"<h3>(image\d+)</h3>", images) == [IMAGES[place] for place in shown]
    assert images.count("<img") == len(shown) * 6
    assert examples.count("<img") == 3 * (3 + 3 * 5)  # best, median and worst of each row
    whole = len(shown) == len(IMAGES)
    assert (f"A sample of {len(shown)} of 12 images" in images) != whole
    assert text.count("All images") == 2 * whole


def test_the_page_says_how_many_images_were_to_be_scored_when_everything_failed(tmp_path):
    jobs = grid(tmp_path)
    text = page_of(results_of(jobs, failed=[job.name for job in jobs]), tmp_path, {})
    assert "12 images of the test split" in text


def test_the_page_says_where_versions_differ(tmp_path):
    jobs = grid(tmp_path)
    same = page_of(results_of(jobs, torch="1.9"), tmp_path, {})
    assert "Not all runs were made with the same versions" not in same
    write_run(jobs[-1], torch="2.0")
    text = page_of(collect({}, jobs, {}, len(IMAGES)), tmp_path, {})
    assert "Not all runs were made with the same versions: torch 1.9, 2.0." in text
