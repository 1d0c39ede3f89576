"""`samfit list`: every table, for people and for programs."""

import json

import pytest

from samfit.cli import main
from samfit.defaults import tables


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
