"""`merge`: the weights give the run's masks in samfit and in transformers, and say where they cannot."""

import logging
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import SamModel

from samfit.backbones import load_backbone
from samfit.backbones.base import Backbone
from samfit.backbones.weights import read_checkpoint
from samfit.backbones.writing import write_weights
from samfit.config import write_config
from samfit.defaults import in_words, resolve
from samfit.engine.merging import merge
from samfit.engine.models import build_model, open_run
from samfit.errors import SettingError, WeightsError
from samfit.runs import RunFolder, save_adapter
from samfit.settings import MergeSettings, TrainSettings
from samfit.testing import SMALL
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts

SIZE = 64
"""Image size of every run here: half the one of sam-tiny, so that its position tables are resized."""
BOX = (10.0, 12.0, 40.0, 50.0)
PROMPTS = Prompts(torch.tensor([[BOX[:2], BOX[2:]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), has_box=True)


def frame() -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def make_run(path: Path, method: str, *, classes: tuple[str, ...] = ("lesion",), **more) -> RunFolder:
    """Write a run whose trained tensors are a little off the base, as if it had been trained."""
    folder = RunFolder(path)
    values = {"backbone": "sam-tiny", "weights": "random", "image_size": SIZE} | more
    settings = resolve(
        TrainSettings(data=Path("data"), output=path, method=method, classes=classes, **values)
    )
    model = build_model(settings, classes)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.trained().values():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    save_adapter(folder.adapter, model)
    write_config(folder.config, in_words(settings))
    return folder


def merged(folder: RunFolder, format: str = "pth") -> Path:
    return merge(MergeSettings(run=folder.path, format=format))


def answer(folder: RunFolder) -> Tensor:
    """Return the run's logits, one channel a class."""
    with torch.no_grad():
        return open_run(folder).model(frame(), None, PROMPTS)


def plain_answer(backbone: Backbone) -> Tensor:
    """Return every mask of a backbone without a method."""
    with torch.no_grad():
        return backbone.decode(backbone.encode(frame()), PROMPTS).logits


def load(weights: Path, backbone: str = "sam-tiny", image_size: int = SIZE) -> Backbone:
    return load_backbone(backbone, weights=weights, image_size=image_size)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> RunFolder:
    """A run of the method that trains the position tables too."""
    return make_run(tmp_path_factory.mktemp("full"), "full")


@pytest.mark.parametrize("format", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("method", "options", "tolerance"),
    [
        ("decoder", {}, 0),
        ("full", {}, 0),
        ("lora", {}, 1e-5),
        ("lora", {"targets": ("q", "v"), "dora": True}, 1e-5),
    ],
)
def test_a_merged_run_gives_the_masks_of_the_run(tmp_path, method, options, tolerance, format):
    folder = make_run(tmp_path, method, **options)
    found = plain_answer(load(merged(folder, format)))[:, :1]
    torch.testing.assert_close(found, answer(folder), rtol=0, atol=tolerance)
    base = plain_answer(load_backbone("sam-tiny", weights="random", image_size=SIZE))[:, :1]
    assert (found - base).abs().max() > 1e-3


def test_the_same_for_efficient_sam(tmp_path):
    folder = make_run(tmp_path, "lora", backbone="efficientsam-ti")
    found = plain_answer(load(merged(folder), "efficientsam-ti"))[:, :1]
    torch.testing.assert_close(found, answer(folder), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_the_file_holds_tensors_with_the_published_names_and_nothing_else(full, format):
    names = load_backbone("sam-tiny", weights="random").published_names()
    path = merge(MergeSettings(run=full.path, format=format, output=full.path / f"other.{format}"))
    assert set(read_checkpoint(path)) == set(names.values())
    if format == "pth":
        content = torch.load(path, weights_only=True)
        assert type(content) is dict
        assert {type(tensor) for tensor in content.values()} == {torch.Tensor}


@pytest.mark.parametrize("classes", [("lesion",), ("disc", "cup"), ("a", "b", "c", "d", "e")])
def test_transformers_loads_the_folder_and_gives_the_masks_of_the_run(tmp_path, classes):
    folder = make_run(tmp_path, "decoder", classes=classes)
    path = merged(folder, "transformers")
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}, "transformers 4 loads no other"
    model, report = SamModel.from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    several = len(classes) > 1
    with torch.no_grad():
        masks = model.eval()(
            pixel_values=frame(), input_boxes=torch.tensor([[BOX]]), multimask_output=several
        ).pred_masks[:, 0]
    torch.testing.assert_close(masks[:, : len(classes)], answer(folder), rtol=0, atol=1e-5)


def test_what_other_programs_must_know_is_said(full, tmp_path, caplog):
    caplog.set_level(logging.INFO, "samfit.engine.merging")
    merge(MergeSettings(run=full.path, output=full.path / "once.pth"))
    merged(make_run(tmp_path / "two", "decoder", classes=("disc", "cup"), fit="squeeze", prompt="click"))
    said = [record.getMessage() for record in caplog.records if record.name == "samfit.engine.merging"]
    assert said == [
        "made for --image-size 64 --fit pad; with --prompt full-box, lesion is mask 0 of the decoder",
        "made for --image-size 64 --fit squeeze; with --prompt click, disc, cup are masks 1, 2 of the "
        "decoder",
    ]


def test_weights_load_at_the_image_size_of_their_run_alone(full):
    path = merge(MergeSettings(run=full.path, output=full.path / "sized.pth"))
    tables = [name for name, tensor in read_checkpoint(path).items() if name.endswith("pos_embed")]
    assert tables == ["image_encoder.pos_embed"]
    with pytest.raises(WeightsError) as caught:
        load(path, image_size=96)
    assert "pos_embed has shape (1, 8, 8, 128), expected (1, 16, 16, 128) or (1, 12, 12, 128)" in str(
        caught.value
    )


def test_more_classes_than_published_masks_are_written_with_a_warning(tmp_path, caplog):
    folder = make_run(tmp_path, "decoder", classes=("a", "b", "c", "d"))
    path = merged(folder)
    assert [record.getMessage() for record in caplog.records if "masks" in record.getMessage()] == [
        f"{path} has 5 masks, one for each class and one more; --weights takes 4 as published, and so does "
        "other code unless its decoder is built with more; --format transformers says how many there are"
    ]
    with pytest.raises(WeightsError, match=r"unexpected.*output_hypernetworks_mlps\.4"):
        load(path)
    caplog.clear()
    merged(folder, "transformers")
    assert not [record for record in caplog.records if "5 masks" in record.getMessage()]


@pytest.mark.parametrize(
    ("family", "variant", "name"),
    [
        ("efficientsam-ti", None, "efficientsam-ti"),
        ("sam-vit-b", "medical-sam-adapter", "sam-vit-b as medical-sam-adapter builds it"),
    ],
)
def test_what_transformers_does_not_have_is_refused(tmp_path, family, variant, name):
    card = SMALL[family].variant(variant)
    backbone = import_module(f"samfit.backbones.{card.module}").build(card, SIZE, card.fit)
    backbone.variant = variant
    with pytest.raises(SettingError) as caught:
        write_weights(backbone, tmp_path / "folder", "transformers")
    assert str(caught.value) == (
        f"--format transformers: transformers has no model for {name}; take pth or safetensors"
    )
    assert not (tmp_path / "folder").exists()
