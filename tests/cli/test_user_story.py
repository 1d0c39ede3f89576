"""A user's first evening, once as real processes: train, evaluate, predict."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samfit.data.drawn import draw_lesions


def samfit(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run `python -m samfit` in a process of its own; it must succeed."""
    process = subprocess.run(
        [sys.executable, "-m", "samfit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    return process


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_train_evaluate_and_predict_follow_each_other(tmp_path):
    data, run, masks = tmp_path / "data", tmp_path / "my run", tmp_path / "masks"
    draw_lesions(data, training=12, test=5, size=(96, 72))
    flags = ("--backbone", "sam-tiny", "--weights", "random", "--method", "cad", "--image-size", "64")
    flags += ("--epochs", "15", "--learning-rate", "3e-3", "--accelerator", "cpu")

    trained = samfit("train", "--data", data, "--dataset", "isic2016", "--output", run, *flags)
    assert f"samfit evaluate '{run}'" in trained.stdout
    assert "epoch 15 of 15: loss " in trained.stderr

    scored = samfit("evaluate", run, "--json")
    summary = json.loads(scored.stdout)
    assert summary == json.loads((run / "evaluation/summary.json").read_text())
    before, after = (part["metrics"]["dice"]["mean"] for part in (summary["unadapted"], summary))
    assert after > before + 0.2

    images, truths = (data / f"ISBI2016_ISIC_Part1_Test_{kind}" for kind in ("Data", "GroundTruth"))
    predicted = samfit("predict", run, images, "--output", masks, "--overlay")
    assert len(predicted.stdout.splitlines()) == 10
    dice = []
    for image in sorted(images.iterdir()):
        mask = pixels(masks / f"{image.stem}.png") == 255
        lesion = pixels(truths / f"{image.stem}_Segmentation.png") == 255
        assert mask.shape == lesion.shape
        dice.append(2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()))
        assert pixels(masks / f"{image.stem}_overlay.png").shape == (72, 96, 3)
    assert np.mean(dice) == pytest.approx(after, abs=1e-6)
    assert list(tmp_path.rglob(".tmp-*")) == []
