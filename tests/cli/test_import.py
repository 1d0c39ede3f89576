"""`samfit import` and `samfit export` as a user meets them, with every kind of published checkpoint."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import drawn_data, finished_run, refuse, succeed, unchanged
from golden_models import by_published_name
from numpy.typing import NDArray
from PIL import Image
from published_files import full_size, published, write

from samfit.backbones import load_backbone
from samfit.engine.models import build_model, open_run
from samfit.methods import attach
from samfit.runs import RunFolder, load_adapter, save_adapter

MEDICAL_TI = "MSA/efficient_sam Ti sam_adpt image_size 256"
FULL_SIZE = {
    # model of the published names: its backbone, image size and classes
    "CAD/vit_b": ("sam-vit-b", 1024, "lesion"),
    "CAD-repository SAM-Adapter/vit_b": ("sam-vit-b", 1024, "lesion"),
    "MSA/sam vit_b sam_adpt image_size 256": ("sam-vit-b", 256, "lesion"),
    "MSA/sam vit_b sam_adpt image_size 1024 multimask_output 2": ("sam-vit-b", 1024, "disc,cup"),
    MEDICAL_TI: ("efficientsam-ti", 256, "lesion"),
    "MSA/efficient_sam S sam_adpt image_size 256": ("efficientsam-s", 256, "lesion"),
}
QUICK = (MEDICAL_TI,)


@pytest.fixture
def room(tmp_path) -> Iterator[Path]:
    """A folder for a gigabyte, which does not stay."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def photo(tmp_path) -> Path:
    """An image with a file of prompts beside it."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).resize((160, 120)).save(path)
    (tmp_path / "clicks.csv").write_text("image,x,y\nphoto,50,40\n")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of CAD on sam-tiny."""
    model = attach(load_backbone("sam-tiny", weights="random"), "cad")
    folder = tmp_path_factory.mktemp("checkpoint")
    return write(folder / "cad.pth", by_published_name(model, model.state_dict()), wrapped=False)


def segment(run: Path, photo: Path, output: Path, *flags: object) -> dict[str, NDArray[np.uint16]]:
    """Segment the photo and return the probabilities of each class, 0 to 65535."""
    command = ("predict", run, photo, "--output", output, "--probabilities", "--accelerator", "cpu")
    succeed(*command, *flags)
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(output.glob("*_probability.png"))}


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FULL_SIZE]
)
def test_every_published_checkpoint_segments_is_saved_and_goes_back(model, room, photo):
    backbone, image_size, classes = FULL_SIZE[model]
    state = full_size(model)
    file = write(room / "checkpoint.pth", state, wrapped=model.startswith("MSA"))
    run = room / "run"
    said = succeed("import", file, "--output", run, "--classes", classes)
    assert f" on {backbone} at {image_size} px" in said.err
    assert ("left out, because no image passes them: 48 tensors" in said.err) == model.startswith("MSA")
    prompts = ("--prompts", photo.parent / "clicks.csv")
    masks = segment(run, photo, room / "masks", *prompts)
    names = classes.split(",")
    ends = [""] if len(names) == 1 else [f"_{name}" for name in sorted(names)]
    assert list(masks) == [f"photo{end}_probability" for end in ends]
    assert all(mask.std() > 0 for mask in masks.values())

    opened = open_run(RunFolder(run))
    save_adapter(room / "adapter.safetensors", opened.model)
    fresh = build_model(opened.settings, opened.model.classes)
    load_adapter(room / "adapter.safetensors", fresh)
    save_adapter(RunFolder(run).adapter, fresh)
    again = segment(run, photo, room / "again", *prompts)
    assert all((again[name] == mask).all() for name, mask in masks.items())

    succeed("export", run)
    content = torch.load(run / "published.pth", weights_only=True)
    exported = content.get("state_dict", content)
    assert exported.keys() == published()[model].keys()
    kept = [name for name in state if ".Depth_Adapter." not in name]
    assert [name for name in kept if not torch.equal(exported[name], state[name])] == []


def test_the_answer_says_what_was_found_and_what_to_do_next(checkpoint, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(photo.parent)
    answer = succeed("import", checkpoint, "--output", "my run")
    lines = answer.out.splitlines()
    assert lines[:3] == ["checkpoint  CAD", "run         my run", "what to do next:"]
    assert f"{checkpoint}: CAD on sam-tiny at 128 px" in answer.err
    assert lines[3] == "  samfit predict 'my run' image.jpg --output masks"
    assert lines[4] == "  samfit evaluate 'my run' --data DIR --dataset folder"
    assert segment(Path("my run"), photo, tmp_path / "masks")


def test_a_run_that_was_trained_with_clicks_is_shown_with_prompts(tmp_path):
    file = write(tmp_path / "checkpoint.pth", full_size(MEDICAL_TI), wrapped=True)
    answer = succeed("import", file, "--output", tmp_path / "run")
    assert "--output masks --prompts clicks.csv" in answer.out


def test_an_imported_run_is_scored_on_a_data_set_that_is_given(checkpoint, tmp_path, tmp_path_factory):
    run = tmp_path / "run"
    succeed("import", checkpoint, "--output", run)
    with unchanged(run):
        message = refuse("evaluate", run)
        assert f"{run} was imported and has no data set: give one with --data and --dataset" in message
    given = ("--data", drawn_data(tmp_path_factory), "--dataset", "isic2016", "--accelerator", "cpu")
    answer = succeed("evaluate", run, *given)
    assert "the base model without adaptation has the adapted mask decoder" in answer.err
    summary = json.loads((run / "evaluation/summary.json").read_text())
    assert list(summary["per_class"]) == ["foreground"]
    assert summary["checkpoint_chosen_on"] is None
    assert summary["departures"][-2:] == [
        "imported: which images chose the checkpoint is not known",
        "the unadapted model has the adapted mask decoder: the checkpoint does not hold its own",
    ]


def test_a_run_of_ones_own_is_scored_without_that_warning(tmp_path, tmp_path_factory):
    run = shutil.copytree(finished_run(tmp_path_factory), tmp_path / "run")
    answer = succeed("evaluate", run, "--accelerator", "cpu")
    assert "adapted mask decoder" not in answer.err


def test_an_imported_run_is_not_resumed(checkpoint, tmp_path):
    run = tmp_path / "run"
    succeed("import", checkpoint, "--output", run)
    with unchanged(run):
        message = refuse("train", "--resume", run)
        assert f"{run} was imported, not trained here" in message
        assert "--data is needed" in refuse(
            "train", "--config", run / "config.yaml", "--output", tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()


def test_training_goes_on_from_an_imported_run_in_another_folder(checkpoint, tmp_path, tmp_path_factory):
    run, new = tmp_path / "run", tmp_path / "new"
    succeed("import", checkpoint, "--output", run, "--classes", "lesion")
    given = ("--config", run / "config.yaml", "--data", drawn_data(tmp_path_factory), "--dataset", "isic2016")
    with unchanged(run):
        succeed("train", *given, "--output", new, "--epochs", "1", "--accelerator", "cpu")
        message = refuse("train", *given, "--epochs", "1", "--accelerator", "cpu", "--overwrite")
        assert "the folder holds the base weights of this training" in message
    header = open_run(RunFolder(new)).model
    assert header.backbone.weights_hash == open_run(RunFolder(run)).model.backbone.weights_hash


def test_import_needs_a_file_and_a_folder(checkpoint, tmp_path):
    assert "--output is needed" in refuse("import", checkpoint)
    assert "Missing argument" in refuse("import", "--output", tmp_path / "run")
    assert "there is no such file" in refuse("import", tmp_path / "none.pth", "--output", tmp_path / "run")
    assert "expected one of pad, squeeze" in refuse(
        "import", checkpoint, "--output", tmp_path / "run", "--fit", "stretch"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_stays(checkpoint, tmp_path):
    run = tmp_path / "run"
    succeed("import", checkpoint, "--output", run)
    with unchanged(run):
        assert "already holds a run" in refuse("import", checkpoint, "--output", run)
    succeed("import", checkpoint, "--output", run, "--overwrite", "--fit", "pad")
    assert RunFolder(run).settings().fit == "pad"


def test_the_way_back_names_the_file_and_refuses_what_would_not_be_the_same(
    checkpoint, tmp_path, tmp_path_factory
):
    run = tmp_path / "run"
    succeed("import", checkpoint, "--output", run)
    assert succeed("export", run, "--output", tmp_path / "back.pth").out == f"{tmp_path / 'back.pth'}\n"
    back, state = (torch.load(path, weights_only=True) for path in (tmp_path / "back.pth", checkpoint))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert "is there already" in refuse("export", run, "--output", tmp_path / "back.pth")
    small = finished_run(tmp_path_factory)  # at 64 px
    with unchanged(small):
        assert "the code of CAD: it works at 128 px, not at 64" in refuse("export", small)
