"""Packages that an extra brings are asked for by the name of that extra."""

import re
import tomllib

import pytest
from support import ROOT

from samfit.errors import SettingError
from samfit.packages import EXTRAS, require_packages

OF_IMPORT = {"py_sod_metrics": "pysodmetrics"}
"""Names of packages that are imported by another one."""


def test_every_extra_installs_what_it_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {
        extra: {re.split(r"[<>=\[]", package)[0] for package in packages}
        for extra, packages in project["optional-dependencies"].items()
    }
    for name, extra in EXTRAS.items():
        assert OF_IMPORT.get(name, name) in installed[extra]


def test_what_is_missing_is_named_once_with_every_extra_that_is_needed(monkeypatch):
    require_packages("--protocol cod", ["py_sod_metrics", "monai"])
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None if name != "scipy" else name)
    with pytest.raises(SettingError) as caught:
        require_packages("--protocol cod", ["monai", "scipy", "jinja2", "monai"])
    assert str(caught.value) == (
        "--protocol cod: not installed: monai, jinja2; pip install '.[metrics,report]' in samfit's folder"
    )
