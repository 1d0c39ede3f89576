"""Real steps on backbones of the published sizes, through the command line a user types."""

import json

import pytest

from samfit.cli import main
from samfit.data.drawn import draw_lesions
from samfit.methods import METHODS, trained_parameters

BACKBONES = ("sam-vit-b", "efficientsam-s")


def train_one_step(folder, *flags):
    """Train on one image and choose on another; return the settings as used and the summary."""
    draw_lesions(folder / "data", training=2, test=1)
    run = folder / "run"
    fixed = "--dataset isic2016 --weights random --epochs 1 --batch-size 1 --accelerator cpu"
    status = main(["train", "--data", str(folder / "data"), "--output", str(run), *fixed.split(), *flags])
    assert status == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == 1
    assert summary["images"] == {"train": 1, "validation": 1}
    return (run / "config.yaml").read_text(), summary


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_real_backbone_trains_at_1024_pixels(backbone, tmp_path, capsys):
    settings, _ = train_one_step(tmp_path, "--backbone", backbone, "--method", "cad")
    assert "random base weights" in capsys.readouterr().err
    assert "image_size: 1024" in settings
    assert "loss_size: 512" in settings


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_method_trains_a_real_backbone_at_512_pixels(backbone, method, tmp_path):
    flags = ["--backbone", backbone, "--method", method, "--image-size", "512"]
    settings, summary = train_one_step(tmp_path, *flags)
    assert "image_size: 512" in settings
    # Counted at the published size: position tables, where they are trained, are smaller at this one.
    assert 0 < summary["trained_parameters"] <= trained_parameters(method)[backbone]
