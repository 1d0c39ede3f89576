"""The demo, as a newcomer runs it."""

import json

import numpy as np
import pytest
from PIL import Image

from samfit.cli import main


@pytest.mark.slow
def test_the_demo_shows_adaptation_at_work(tmp_path, capsys):
    demo = tmp_path / "demo"
    assert main(["demo", "--output", str(demo)]) == 0
    said = capsys.readouterr().out
    summary = json.loads((demo / "run/evaluation/summary.json").read_text())
    before = summary["unadapted"]["metrics"]["dice"]["mean"]
    after = summary["metrics"]["dice"]["mean"]
    assert after >= before + 0.2
    assert f"{before:.3f}" in said
    assert f"{after:.3f}" in said
    overlays = sorted((demo / "run/evaluation/overlays").glob("*.png"))
    assert len(overlays) == 8
    for overlay in overlays:
        name = overlay.stem.split("_", 1)[1]
        image = next((demo / "data").rglob(f"{name}.jpg"))
        plain = np.asarray(Image.open(image))
        captioned = np.asarray(Image.open(overlay))
        assert captioned.shape[0] > plain.shape[0]
        drawn = captioned[: plain.shape[0], : plain.shape[1]]
        assert 0.01 < (np.abs(drawn.astype(int) - plain).max(axis=2) > 20).mean() < 0.9


def test_a_folder_that_holds_something_is_not_used_unasked(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path} is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
