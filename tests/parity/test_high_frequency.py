"""The high-frequency image, against the CAD repository's."""

import pytest
from parity_support import error, load_golden

from samfit.methods.high_frequency import high_frequency

SIZES = [
    "16x16",
    "64x64",
    "48x80",
    "80x48",
    "33x47",
    "47x33",
    "63x63",
    "1x8",
    "4x64",
    "6x200",
    "96x128",
    "batch2_64x64",
]


@pytest.fixture(scope="module")
def golden():
    tensors, _ = load_golden("high_frequency")
    sizes = {key.removeprefix("out.") for key in tensors if key.startswith("out.")}
    assert sizes == {*SIZES, "48x80.tau0.0625"}
    return tensors


@pytest.mark.parametrize("size", SIZES)
def test_every_size_equals_the_published_image(golden, size):
    assert error(high_frequency(golden[f"in.{size}"].float()), golden[f"out.{size}"]) < 2e-5


def test_another_share_of_the_spectrum_equals_the_published_image(golden):
    found = high_frequency(golden["in.48x80"].float(), tau=0.0625)
    assert error(found, golden["out.48x80.tau0.0625"]) < 2e-5


def test_a_wrong_share_of_the_spectrum_is_caught(golden):
    assert error(high_frequency(golden["in.64x64"].float(), tau=0.2), golden["out.64x64"]) > 1e-2
