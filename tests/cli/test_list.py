"""`samfit list`: every table, for people and for programs."""

import json

import pytest

from samfit.backbones import BACKBONES
from samfit.cli import main
from samfit.declare import flag
from samfit.defaults import tables
from samfit.methods import METHODS, trained_parameters


@pytest.mark.parametrize(("what", "names"), tables().items())
def test_every_row_of_a_table_is_shown(what, names, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert shown == list(names)


@pytest.mark.parametrize(("what", "names"), tables().items())
def test_json_holds_every_row(what, names, capsys):
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(names)
    assert all(row["summary"] for row in rows)


@pytest.fixture
def methods(capsys) -> dict[str, str]:
    """What `list methods` shows of each method, as one line."""
    assert main(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert max(map(len, lines)) <= 110
    shown: dict[str, str] = {}
    for line in lines:
        if not line.startswith(" "):
            name, line = line.split(maxsplit=1)
            shown[name] = ""
        shown[name] += " ".join(line.split()) + " "
    return shown


@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.name)
def test_a_method_is_shown_with_its_options_and_what_it_costs(row, methods):
    shown = methods[row.name]
    assert row.paper in shown
    for part in row.trains:
        assert part.replace("_", " ") in shown
    for name, count in trained_parameters(row.name).items():
        assert f"{count / 1e6:.2f} M on {name}" in shown
    everyones = {field for other in METHODS.values() for field in other.options.model_fields}
    own = {field for field in everyones if f"{flag(field)} " in shown}
    assert own == set(row.options.model_fields)
    assert ("gradient does not reach the encoder" in shown) == (row.gradient_from is None)
    assert ("gradient crosses the whole encoder" in shown) == (row.gradient_from == -1)


def test_an_option_is_shown_with_its_range_and_default(methods):
    assert "--rank N rank of each update [at least 1 and at most 512] [default: 4]" in methods["lora"]
    assert "[some of qkv, q, k, v, proj, mlp] [default: qkv,proj]" in methods["lora"]


def test_json_of_methods_holds_options_and_trained_parameters(capsys):
    main(["list", "methods", "--json"])
    listed = json.loads(capsys.readouterr().out)
    for shown in listed:
        row = METHODS[shown["name"]]
        assert shown["gradient_from"] == row.gradient_from
        assert list(shown["trained_parameters"]) == list(BACKBONES)
        defaults = {option["name"]: option["default"] for option in shown["options"]}
        assert defaults == row.options().model_dump(mode="json")
    rank = {"name": "rank", "flag": "--rank", "help": "rank of each update", "default": 4}
    rank["values"] = "a whole number, at least 1 and at most 512"
    [lora] = [row for row in listed if row["name"] == "lora"]
    assert rank in lora["options"]
