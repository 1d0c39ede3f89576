"""The stored numbers of trained parameters, which `samfit list methods` shows without building anything."""

import sys

import pytest
from support import ROOT

from samfit.backbones import BACKBONES
from samfit.methods import METHODS, trained_parameters

sys.path.insert(0, str(ROOT / "benchmarks"))

import count_parameters


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_stored_numbers_are_those_of_the_models(backbone):
    counted = {method: count_parameters.count(method, backbone) for method in METHODS}
    stored = {method: trained_parameters(method)[backbone] for method in METHODS}
    assert stored == counted, "run python benchmarks/count_parameters.py"
