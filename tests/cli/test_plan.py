"""`samfit plan`, as its user sees it, and `samfit train --vram`."""

import json
from pathlib import Path

import pytest
from cli_support import TINY, drawn_data, refuse, samfit, succeed
from plan_support import MB, WEIGHTS, estimate, forget, of_prediction

from samfit.backbones import BACKBONES
from samfit.config import read_config
from samfit.methods import METHODS
from samfit.plan import choice, tables
from samfit.plan.choice import ALLOWANCE


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the memory of every setup without tracing it."""
    for module in (choice, tables):
        monkeypatch.setattr(module, "training", estimate)
        monkeypatch.setattr(module, "prediction", of_prediction)


def plan(*flags: object) -> list[dict]:
    return json.loads(succeed("--quiet", "plan", "--json", *flags).out)


def test_every_method_on_every_backbone_has_a_line(known: None):
    pairs = [(line["setup"]["backbone"], line["setup"]["method"]) for line in plan()]
    assert pairs == [(backbone, method) for backbone in BACKBONES for method in METHODS]
    assert all(f" {method} " in succeed("plan").out for method in METHODS)


def test_one_method_on_one_backbone_is_shown_in_every_way(known: None):
    lines = plan("--backbone", "sam-tiny", "--method", "cad")
    ways = {
        (line["setup"]["precision"], line["setup"]["checkpointing"], line["setup"]["cached"])
        for line in lines
    }
    assert len(ways) == len(lines) == 8
    assert len(plan("--backbone", "sam-tiny", "--method", "lora")) == 4
    answer = succeed("plan", "--backbone", "sam-tiny", "--method", "cad")
    assert "backbone sam-tiny, method cad, batch 4" in answer.out
    assert "precision  checkpointing  cache  weights" in answer.out
    assert f"to be left free beside it: {ALLOWANCE // MB} MB" in answer.out


def test_what_is_given_is_the_only_way(known: None):
    flags = ("--backbone", "sam-tiny", "--method", "cad", "--precision", "bf16", "--checkpointing", "on")
    [line] = plan(*flags, "--cache", "off", "--batch-size", 3, "--classes", 2, "--image-size", 64)
    setup = line["setup"]
    assert (setup["batch_size"], setup["classes"], setup["image_size"], setup["loss_size"]) == (3, 2, 64, 32)
    assert (setup["precision"], setup["checkpointing"], setup["cached"]) == ("bf16", True, False)
    assert (setup["device"], setup["attention"]) == ("gpu", "folded")
    assert plan(*flags, "--cache", "off", "--accelerator", "cpu")[0]["setup"]["attention"] == "chunked"


def test_with_vram_the_largest_batch_of_every_way_is_shown_best_first(known: None):
    flags = ("--backbone", "sam-tiny", "--method", "lora", "--vram")
    lines = plan(*flags, f"{ALLOWANCE + WEIGHTS + 1600 * MB}")
    assert [line["largest_batch"] for line in lines] == [40, 160, 80, 320]
    assert [line["given_up"] for line in lines][:2] == [[], ["time, to compute parts of the model twice"]]
    answer = succeed("plan", *flags, "2400MB")
    assert "largest batch: images that pass at once within 2400 MB" in answer.out
    assert " nothing" in answer.out


def test_what_does_not_fit_is_said(known: None):
    answer = succeed("plan", "--vram", "1GB", "--image-size", "1024")
    assert "does not fit" in answer.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backbone", "sam-vit"), "sam-vit-b"),
        (("--method", "lore"), "lora"),
        (("--vram", "8 gibs"), "--vram 8 gibs: expected a size as 8GiB or 8GB"),
        (("--vram", "-8GB"), "--vram"),
        (("--method", "cad", "--rank", 4), "--rank"),
        (("--backbone", "sam-tiny", "--image-size", 100), "multiple of 8"),
    ],
)
def test_wrong_words_are_refused(known: None, flags: tuple[object, ...], message: str):
    assert message in refuse("plan", *flags)


def test_a_real_plan_needs_no_weights_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path))
    forget()
    ways = ("--precision", "32", "--cache", "off", "--checkpointing", "off", "--image-size", 64)
    [line] = plan("--backbone", "sam-tiny", "--method", "decoder", "--accelerator", "cpu", *ways)
    assert MB < line["peak"] == sum(line["training"].values()) < 100 * MB
    [kept] = tmp_path.glob("plan-*.json")
    assert " decoder " in kept.read_text(encoding="utf-8")
    forget()


def test_train_chooses_what_fits_and_writes_it_into_the_run(
    known: None, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    data = drawn_data(tmp_path_factory)
    flags = ("train", "--data", data, "--dataset", "isic2016", *TINY, "--method", "lora", "--max-steps", 1)
    flags = (*flags, "--checkpointing", "auto")
    size = ALLOWANCE + WEIGHTS + 5 * MB
    answer = succeed(*flags, "--batch-size", 2, "--vram", size, "--output", tmp_path / "run")
    assert "--checkpointing on" in answer.err
    config = read_config(tmp_path / "run/config.yaml")
    assert (config["checkpointing"], config["accumulate"], config["precision"]) == ("on", 1, "32")
    summary = json.loads((tmp_path / "run/summary.json").read_text(encoding="utf-8"))
    assert summary["out_of_memory"]["checkpointing"] is True
    again = samfit("train", "--config", tmp_path / "run/config.yaml", "--output", tmp_path / "again")
    assert again.status == 0, again.err


def test_train_refuses_what_cannot_fit_before_anything_is_written(
    known: None, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    data = drawn_data(tmp_path_factory)
    message = refuse(
        "train",
        "--data",
        data,
        "--dataset",
        "isic2016",
        *TINY,
        "--vram",
        "0.5GB",
        "--output",
        tmp_path / "run",
    )
    assert "for a single image" in message
    assert "samfit plan --vram" in message
    assert not (tmp_path / "run").exists()
