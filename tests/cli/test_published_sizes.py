"""One real step at the published size, through the command line a user types."""

import json

import pytest

from samfit.cli import main
from samfit.data.drawn import draw_lesions


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sam-vit-b", "efficientsam-s"])
def test_a_real_backbone_trains_at_1024_pixels(backbone, tmp_path, capsys):
    draw_lesions(tmp_path / "data", training=2, test=1)
    run = tmp_path / "run"
    arguments = ["--data", str(tmp_path / "data"), "--dataset", "isic2016", "--output", str(run)]
    arguments += ["--backbone", backbone, "--weights", "random", "--method", "cad"]
    arguments += ["--epochs", "1", "--batch-size", "1", "--accelerator", "cpu"]
    status = main(["train", *arguments])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "random base weights" in said.err
    settings = (run / "config.yaml").read_text()
    assert "image_size: 1024" in settings
    assert "loss_size: 512" in settings
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == 1
    assert summary["images"] == {"train": 1, "validation": 1}
