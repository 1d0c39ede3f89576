"""The card that every training leaves: what it says, and that an evaluation adds its scores."""

import json
import re
import shutil

import pytest
from cli_support import drawn_data, finished_run, succeed

from samfit.backbones import BACKBONES
from samfit.report.model_card import model_card

SETTINGS = {
    "backbone": "sam-vit-b",
    "method": "lora",
    "weights": "published",
    "seed": 3,
    "precision": "32",
    "data": "/home/anna/eyes",
    "group": "/home/anna/patients.csv",
    "output": "/home/anna/run",
    "classes": ["disc", "cup"],
    "rank": 8,
    "targets": ["q", "v"],
    "dora": False,
    "epochs": 20,
    "patience": None,
    "workers": 2,
}
SUMMARY = {
    "epochs": 12,
    "validation": {"dice": 0.91234, "iou": 0.85},
    "protocol": "default",
    "prompt": "box",
    "prompt_from_truth": True,
    "trained_parameters": 4146912,
    "parameters": 93957000,
    "images": {"train": 30, "validation": 5},
    "mask_reading": "above 0 is foreground",
    "empty_masks": {"disc": 0, "cup": 2},
    "data_fingerprint": "f" * 64,
    "base_sha256": "b" * 64,
    "versions": {"python": "3.11.7", "samfit": "0.1.0"},
}
SCORED = {
    "protocol": "default",
    "prompt": "box",
    "prompt_from_truth": True,
    "departures": ["trained with --prompt click, asked with box"],
    "metrics": {"dice": {"mean": 0.9, "low": 0.8, "high": 0.95}},
    "unadapted": {"metrics": {"dice": {"mean": 0.5, "low": None, "high": None}}},
}
EVALUATION = {
    "images": 7,
    "split": "test",
    "intervals": "BCa bootstrap over images, 95 %",
    **SCORED,
    "other_protocols": {
        "cad": {**SCORED, "protocol": "cad", "prompt": "full-box", "prompt_from_truth": False}
    },
}


def rows_of(card: str) -> dict[str, str]:
    """Return the rows of all tables, the first cell to the others."""
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", card, re.MULTILINE))


def test_a_card_says_what_was_trained_on_what_and_how():
    card = model_card(SETTINGS, SUMMARY)
    assert card.startswith("# lora on sam-vit-b\n\nSegments disc, cup.\n")
    assert "Dice 0.912, IoU 0.850 (protocol `default`, prompt `box`, taken from the truth)" in card
    rows = rows_of(card)
    assert rows["trained"] == "4,146,912 of 93,957,000 parameters"
    assert rows["base weights"] == "published: sam_vit_b_01ec64.pth"
    assert rows["fingerprint of all files"] == f"`{'f' * 64}`"
    assert (rows["images to train on"], rows["masks without cup"]) == ("30", "2")
    assert (rows["`--rank`"], rows["`--targets`"], rows["`--epochs`"]) == ("8", "q,v", "20")
    assert (rows["`--seed`"], rows["`--precision`"], rows["python"]) == ("3", "32", "3.11.7")
    assert "`--patience`" not in rows
    assert "not been scored on other images yet" in card
    assert "$" not in card


def test_a_card_holds_no_path_of_the_machine():
    for weights in ("published", "/home/anna/best.pth"):
        assert "anna" not in model_card(SETTINGS | {"weights": weights}, SUMMARY)


@pytest.mark.parametrize(
    ("weights", "licence"),
    [
        ("published", "under their licence: Apache-2.0."),
        ("random", "as they were drawn at random; the encoder has learnt nothing."),
        ("/home/anna/best.pth", "that of the file `best.pth`, which whoever made it knows."),
    ],
)
def test_a_card_names_the_licence_of_the_base_weights(weights, licence):
    assert licence in model_card(SETTINGS | {"weights": weights}, SUMMARY)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_a_card_of_random_weights(name):
    card = model_card(SETTINGS | {"backbone": name, "weights": "random"}, SUMMARY)
    assert rows_of(card)["backbone"] == f"{name}: {BACKBONES[name].paper}"


def test_scores_stand_beside_the_base_model_with_interval_protocol_and_departures():
    card = model_card(SETTINGS, SUMMARY, EVALUATION)
    assert "On 7 images of the test split (BCa bootstrap over images, 95 %):" in card
    assert "| `default` | box (truth) | Dice | 0.900 (0.800 to 0.950) | 0.500 |" in card
    assert "| `cad` | full-box | Dice | 0.900 (0.800 to 0.950) | 0.500 |" in card
    assert "- `default`: trained with --prompt click, asked with box" in card
    assert "not been scored" not in card


def test_a_training_writes_the_card_and_an_evaluation_of_its_data_completes_it(tmp_path_factory, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run(tmp_path_factory), run)
    before = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    trained = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert rows_of(before)["SHA-256 of these"] == f"`{trained['base_sha256']}`"
    assert "not been scored" in before

    elsewhere = tmp_path / "copy"
    shutil.copytree(drawn_data(tmp_path_factory), elsewhere)
    evaluate = ("evaluate", run, "--accelerator", "cpu", "--overlays", "0")
    succeed(*evaluate, "--data", elsewhere)
    assert (run / "MODEL_CARD.md").read_text(encoding="utf-8") == before

    succeed(*evaluate)
    after = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    scored = json.loads((run / "evaluation/summary.json").read_text(encoding="utf-8"))
    assert f"| `default` | full-box | Dice | {scored['metrics']['dice']['mean']:.3f} (" in after
    head, _, tail = before.partition("It has not been scored")
    assert after.startswith(head)
    assert after.endswith(tail.partition("\n\n## What it is made of")[2])
