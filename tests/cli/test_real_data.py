"""Real images through the command line: what a bare `samfit train` reaches on sam-tiny with random weights.

Thresholds are what a user may expect, not what was measured; "trivial" is the better of the mean training
mask at its best threshold and everything foreground.
"""

import json

import pytest
from support import real_data

from samfit.cli import main

BARE = {
    # method: mean Dice on the test images of ph2_isic_layout; trivial predictions reach 0.63
    "cad": 0.88,
    "decoder": 0.85,
}
BOXES = {
    # set: layout, class flags, best trivial Dice by class
    "wbc1": (
        "folder",
        ["--mask-values", "cytoplasm=128,nucleus=255"],
        {"cytoplasm": 0.597, "nucleus": 0.756},
    ),
    "crackforest": ("folder", [], {"foreground": 0.078}),
    "polyp_mini": ("folder", [], {"foreground": 0.181}),
    "dsb2018_nuclei": ("folder", [], {"foreground": 0.275}),
    "drishti_refuge_layout": ("refuge", [], {"disc": 0.648, "cup": 0.523}),
}


def train_and_evaluate(name, run, *flags):
    """Run the two commands with everything else at its default; return evaluation/summary.json."""
    tiny = ["--backbone", "sam-tiny", "--weights", "random", "--accelerator", "cpu"]
    assert main(["train", "--data", str(real_data(name)), *tiny, "--output", str(run), *flags]) == 0
    assert main(["evaluate", str(run), "--accelerator", "cpu"]) == 0
    return json.loads((run / "evaluation/summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", BARE)
def test_skin_lesions_with_everything_at_its_default(method, tmp_path):
    flags = ["--dataset", "isic2016", "--method", method]
    summary = train_and_evaluate("ph2_isic_layout", tmp_path / "run", *flags)
    assert summary["images"] == 50
    assert summary["metrics"]["dice"]["mean"] >= BARE[method]
    assert summary["unadapted"]["metrics"]["dice"]["mean"] < 0.63


@pytest.mark.slow
@pytest.mark.parametrize("name", BOXES)
def test_with_a_box_prompt_cad_beats_every_trivial_prediction(name, tmp_path):
    layout, flags, trivial = BOXES[name]
    summary = train_and_evaluate(name, tmp_path / "run", "--dataset", layout, "--prompt", "box", *flags)
    scores = {label: metrics["dice"]["mean"] for label, metrics in summary["per_class"].items()}
    assert scores.keys() == trivial.keys()
    assert all(scores[label] > trivial[label] for label in trivial), scores
