"""Checkpoints of published training codes as runs: the published numbers, and everything that is refused."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_models import GOLDEN_CARD, golden_batch, of_case
from parity_support import error, load_golden
from published_files import (
    KINDS,
    MEDICAL_CARD,
    MEDICAL_TI,
    TI_CARD,
    answer,
    cad_state,
    imported,
    know,
    medical_state,
    sam_adapter_state,
    write,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from samfit.engine.importing import import_checkpoint
from samfit.engine.loaded import load_run
from samfit.engine.models import build_model, open_run
from samfit.engine.training import resume, train
from samfit.errors import RunError, SamfitError, SettingError, StorageError, WeightsError
from samfit.runs import RunFolder, load_adapter, read_adapter, save_adapter
from samfit.settings import ImportSettings
from samfit.types import Prompts

LOGITS, EMBEDDING = 1e-5, 2e-5


@pytest.fixture
def tiny_sam(monkeypatch):
    know(monkeypatch, GOLDEN_CARD)


@pytest.fixture
def tiny_medical(monkeypatch):
    know(monkeypatch, MEDICAL_CARD)


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (GOLDEN_CARD.mean, GOLDEN_CARD.std))
    return (images - mean) / std


# The published numbers


@pytest.mark.parametrize("case", ["A", "B"])
def test_a_checkpoint_of_cad_gives_the_published_logits(tiny_sam, tmp_path, case):
    tensors, _ = load_golden("cad_sam_tiny")
    model = imported(tmp_path, cad_state(), fit="pad").model
    batch = golden_batch(model, of_case(tensors, case))
    with torch.no_grad():
        found = model(batch.frame, batch.extra, batch.prompts)
    assert error(found, tensors[f"{case}.out.eval.low_res_logits"]) < LOGITS


@pytest.mark.parametrize("case", ["A", "B"])
def test_a_checkpoint_of_sam_adapter_gives_the_published_logits(tiny_sam, tmp_path, case):
    images, _ = load_golden("cad_sam_tiny")
    tensors, _ = load_golden("sam_adapter_encoder")
    model = imported(tmp_path, sam_adapter_state(), fit="pad").model
    batch = golden_batch(model, of_case(images, case))
    with torch.no_grad():
        found = model(batch.frame, batch.extra, batch.prompts)
    assert error(found, tensors[f"{case}.out.low_res_logits"]) < LOGITS


@pytest.mark.parametrize("classes", [("disc",), ("disc", "cup")])
def test_a_checkpoint_of_medical_sam_adapter_gives_the_published_logits(tiny_medical, tmp_path, classes):
    tensors, _ = load_golden("msa_sam_encoder")
    model = imported(tmp_path, medical_state(), wrapped=True, classes=classes).model
    prompts = Prompts(tensors["in.points"], tensors["in.labels"].long(), has_box=False)
    with torch.no_grad():
        found = model(normalised(tensors["in.image"]), None, prompts)
    assert error(found, tensors[f"full{len(classes)}.low_res_logits"]) < LOGITS


def test_a_checkpoint_of_medical_sam_adapter_on_efficientsam_gives_the_published_embedding(
    monkeypatch, tmp_path
):
    tensors, _ = load_golden("msa_efficient_sam_encoder")
    know(monkeypatch, TI_CARD)
    state = medical_state(TI_CARD.name, 256, MEDICAL_TI)
    model = imported(tmp_path, state, wrapped=True).model
    with torch.no_grad():
        assert error(model.encode(normalised(tensors["in.image"])), tensors["out.y"]) < EMBEDDING


# The run


EXPECTED = {
    "CAD": ("cad", None, "full-box"),
    "CAD's SAM-Adapter": ("sam-adapter", None, "full-box"),
    "Medical SAM Adapter": ("medical-adapter", "medical-sam-adapter", "click"),
}
"""Method, variant and prompt of each kind."""


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """A kind of checkpoint, on a tiny SAM that stands in the table."""
    know(monkeypatch, KINDS[request.param].card)
    return request.param


def test_the_settings_of_the_run_say_what_the_file_does_not(kind, tmp_path):
    run = imported(tmp_path, KINDS[kind].make(), classes=("lesion",))
    folder = RunFolder(tmp_path / "run")
    found = folder.settings()
    assert (found.method, found.variant, found.prompt) == EXPECTED[kind]
    assert (found.image_size, found.fit, found.classes, found.data) == (128, "squeeze", ("lesion",), None)
    assert found.weights == str(folder.base)
    assert None not in (found.loss, found.learning_rate, found.epochs, found.batch_size)
    summary = json.loads(folder.summary.read_text())
    assert summary["imported"]["kind"] == kind
    assert summary["imported"]["file"] == str(tmp_path / "checkpoint.pth")
    assert summary["base_sha256"] == run.model.backbone.weights_hash
    assert summary["trained_parameters"] == sum(p.numel() for p in run.model.trained().values())


def test_an_adapter_saved_again_gives_the_same_masks_in_a_fresh_model(kind, tmp_path):
    run = imported(tmp_path, KINDS[kind].make())
    save_adapter(tmp_path / "again.safetensors", run.model)
    fresh = build_model(run.settings, run.model.classes)
    assert not torch.equal(answer(run, fresh), answer(run))
    load_adapter(tmp_path / "again.safetensors", fresh)
    assert torch.equal(answer(run, fresh), answer(run))
    _, state = read_adapter(RunFolder(tmp_path / "run").adapter)
    assert state.keys() == run.model.adapter_state().keys()


def test_a_run_works_where_it_was_moved_to(kind, tmp_path):
    before = answer(imported(tmp_path, KINDS[kind].make()))
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert torch.equal(answer(open_run(RunFolder(tmp_path / "elsewhere"))), before)


def test_a_run_segments_an_image(kind, tmp_path):
    imported(tmp_path, KINDS[kind].make())
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    masks = load_run(tmp_path / "run", accelerator="cpu").predict(image, box=(0, 0, 69, 49))
    assert masks["foreground"].shape == (50, 70)


@pytest.mark.parametrize("ending", [".safetensors", ".zip"])
def test_any_kind_of_file_is_read(tiny_sam, tmp_path, ending):
    state = cad_state()
    expected = answer(imported(tmp_path, state))
    path = tmp_path / f"checkpoint{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "checkpoint.pth", "checkpoint.pth")
    import_checkpoint(ImportSettings(file=path, output=tmp_path / "other"))
    assert torch.equal(answer(open_run(RunFolder(tmp_path / "other"))), expected)


def test_what_no_image_passes_is_left_out_and_said(tiny_medical, tmp_path, caplog):
    caplog.set_level("INFO", "samfit")
    state = medical_state()
    unused = [name for name in state if "Depth_Adapter" in name]
    run = imported(tmp_path, state, wrapped=True)
    assert f"left out, because no image passes them: {len(unused)} tensors" in caplog.text
    assert f"{MEDICAL_CARD.name} at 128 px" in caplog.text
    before = answer(run)
    for name in unused:
        state[name] = state[name] + 1
    shutil.rmtree(tmp_path / "run")
    assert torch.equal(answer(imported(tmp_path, state)), before)


@pytest.mark.parametrize("image_size", [128, 256])
def test_the_image_size_is_that_of_the_tables(tiny_medical, tmp_path, image_size):
    run = imported(tmp_path, medical_state(image_size=image_size))
    assert run.settings.image_size == run.model.backbone.frame.size == image_size


def test_tensors_that_share_memory_or_have_few_bits_are_taken(tiny_sam, tmp_path):
    state = cad_state()
    bias, other = "image_encoder.blocks.0.norm1.bias", "image_encoder.blocks.1.norm1.bias"
    state[other] = state[bias]
    kernel = "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    state[kernel] = state[kernel].half()
    encoder = imported(tmp_path, state).model.backbone.image_encoder
    assert torch.equal(encoder.layers[1].layer_norm1.bias, encoder.layers[0].layer_norm1.bias)


# What is refused


def refused(folder: Path, state: Any, kind: type[SamfitError] = WeightsError, **settings: Any) -> str:
    """Import what must be refused and leave nothing behind; return the message."""
    file = folder / "checkpoint.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, file)
    with pytest.raises(kind) as caught:
        import_checkpoint(ImportSettings(file=file, output=folder / "run", **settings))
    assert not (folder / "run").exists()
    return str(caught.value)


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        del state[name]

    return change


def with_value(
    name: str, value: Callable[[dict[str, Tensor]], Tensor]
) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[name] = value(state)

    return change


UP = "image_encoder.task_adapter_up.weight"
COPY = "image_encoder.task_adapter_blocks.2.up_projection.weight"
WRONG = {
    "no adapter tensor": (
        cad_state,
        without("conv_adapter.conv_up.bias"),
        "missing (1): conv_adapter.conv_up.bias",
    ),
    "no base tensor": (
        cad_state,
        without("image_encoder.blocks.2.norm1.bias"),
        "missing (1): image_encoder.blocks.2.norm1.bias",
    ),
    "a name too many": (
        cad_state,
        with_value("conv_adapter.gate", lambda _: torch.zeros(1)),
        "unexpected (1): conv_adapter.gate",
    ),
    "adapter of another shape": (
        cad_state,
        with_value("conv_adapter.conv_up.bias", lambda _: torch.zeros(7)),
        "wrong shapes (1): conv_adapter.conv_up.bias (7,) instead of (256,)",
    ),
    "base of another shape": (
        cad_state,
        with_value("image_encoder.blocks.2.norm1.bias", lambda _: torch.zeros(7)),
        "wrong shapes (1): image_encoder.blocks.2.norm1.bias (7,) instead of (64,)",
    ),
    "whole numbers": (
        cad_state,
        with_value("conv_adapter.conv_up.bias", lambda state: state["conv_adapter.conv_up.bias"].int()),
        "no floating-point numbers (1): conv_adapter.conv_up.bias",
    ),
    "another image size": (
        cad_state,
        with_value("image_encoder.blocks.1.attn.rel_pos_h", lambda _: torch.zeros(31, 16)),
        "image_encoder.blocks.1.attn.rel_pos_h has shape (31, 16)",
    ),
    "another table of positions": (
        cad_state,
        with_value("image_encoder.pos_embed", lambda _: torch.zeros(1, 4, 4, 64)),
        "image_encoder.pos_embed has shape (1, 4, 4, 64)",
    ),
    "more masks": (
        cad_state,
        with_value("mask_decoder.mask_tokens.weight", lambda _: torch.zeros(6, 256)),
        "wrong shapes (1): mask_decoder.mask_tokens.weight (6, 256) instead of (4, 256)",
    ),
    "no shared projection": (sam_adapter_state, without(COPY), f"missing (1): {COPY}"),
    "unequal projections": (
        sam_adapter_state,
        with_value(COPY, lambda state: state[UP] + 1e-3),
        f"not equal (1): {COPY}",
    ),
    "LoRA": (
        cad_state,
        with_value("image_encoder.blocks.0.attn.qkv.lora_A", lambda _: torch.zeros(8, 64)),
        "a checkpoint of Medical SAM Adapter's LoRA, which samfit cannot import; known: CAD, ",
    ),
    "plain weights": (
        lambda: {name: t for name, t in cad_state().items() if not name.startswith("conv_adapter.")},
        lambda state: None,
        "weights of golden-tiny without an adapter",
    ),
    "another model": (
        lambda: {"layer1.weight": torch.zeros(3)},
        lambda state: None,
        "no checkpoint that samfit knows, the first of its 1 tensors is layer1.weight; known: CAD,",
    ),
    "a backbone of unknown depth": (
        lambda: {name: t for name, t in cad_state().items() if ".blocks.3." not in name},
        lambda state: None,
        "a checkpoint of CAD on a backbone of unknown depth and width",
    ),
    "a backbone without width": (
        cad_state,
        with_value("image_encoder.pos_embed", lambda _: torch.tensor(0.0)),
        "a checkpoint of CAD on a backbone of unknown depth and width",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_does_not_fit_is_named_and_nothing_is_written(tiny_sam, tmp_path, fault):
    make, change, expected = WRONG[fault]
    state = make()
    change(state)
    message = refused(tmp_path, state)
    assert str(tmp_path / "checkpoint.pth") in message
    assert expected in message


@pytest.mark.parametrize(
    ("make", "change"),
    [(cad_state, {"module": "efficient_sam"}), (medical_state, {"variants": {}})],
)
def test_a_checkpoint_on_a_backbone_that_its_code_does_not_build_is_refused(
    monkeypatch, tiny_medical, tmp_path, make, change
):
    state = make()
    know(monkeypatch, replace(MEDICAL_CARD, **change))
    assert "on golden-tiny, which samfit cannot import" in refused(tmp_path, state)


def test_more_classes_than_the_code_has_masks_for_are_refused(kind, tmp_path):
    most = 4 if kind == "Medical SAM Adapter" else 1
    classes = tuple("abcde")[: most + 1]
    message = refused(tmp_path, KINDS[kind].make(), SettingError, classes=classes)
    assert f"--classes {','.join(classes)}: a checkpoint of {kind} gives at most {most} of them" in message


def test_tables_of_no_possible_image_size_are_refused(tiny_medical, tmp_path):
    state = medical_state()
    for name in state:
        if name.endswith((".rel_h", ".rel_w")) and ".blocks.1." in name:
            state[name] = torch.zeros(16, 16)
    assert "image_encoder.blocks.1.attn.rel_h has shape (16, 16)" in refused(tmp_path, state)
    for name in state:
        if name.endswith((".rel_h", ".rel_w")) and ".blocks.1." in name:
            state[name] = torch.zeros(10_000, 16)
    assert "--image-size 80000: expected" in refused(tmp_path, state, SettingError)


def test_a_pickle_with_code_is_not_run(tiny_sam, tmp_path):
    message = refused(tmp_path, {"state_dict": cad_state(), "net": nn.Linear(1, 1)})
    assert "a pickle with code in it (torch.nn.modules.linear.Linear): refused" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"not a checkpoint", "cut off or not a checkpoint"),
        (b"", "cut off or not a checkpoint"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, expected):
    file = tmp_path / "checkpoint.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=expected):
        import_checkpoint(ImportSettings(file=file, output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_file_that_was_cut_is_refused(tiny_sam, tmp_path):
    whole = write(tmp_path / "checkpoint.pth", cad_state(), wrapped=False).read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cut off or not a checkpoint"):
        import_checkpoint(ImportSettings(file=tmp_path / "checkpoint.pth", output=tmp_path / "run"))


def test_entries_that_are_no_tensors_are_refused_where_tensors_belong(tiny_sam, tmp_path):
    assert "no tensors are epoch" in refused(tmp_path, cad_state() | {"epoch": 7})


def test_an_existing_run_stays_unless_it_is_to_be_replaced(tiny_sam, tmp_path):
    imported(tmp_path, cad_state())
    folder = RunFolder(tmp_path / "run")
    folder.checkpoint.write_text("of an older run")
    before = folder.summary.read_text()
    settings = ImportSettings(file=tmp_path / "checkpoint.pth", output=folder.path, classes=("lesion",))
    with pytest.raises(RunError, match="already holds a run"):
        import_checkpoint(settings)
    assert folder.summary.read_text() == before
    import_checkpoint(settings.model_copy(update={"overwrite": True}))
    assert folder.settings().classes == ("lesion",)
    assert not folder.checkpoint.exists()


def test_a_run_that_cannot_be_written_whole_leaves_nothing(tiny_sam, tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("samfit.engine.importing.save_adapter", full)
    file = write(tmp_path / "checkpoint.pth", cad_state(), wrapped=False)
    with pytest.raises(StorageError):
        import_checkpoint(ImportSettings(file=file, output=tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


# What an imported run cannot do


def test_an_imported_run_cannot_be_resumed(tiny_sam, tmp_path):
    imported(tmp_path, cad_state())
    with pytest.raises(RunError, match="was imported, not trained here"):
        resume(tmp_path / "run")


def test_training_with_its_settings_needs_a_data_set_and_another_folder(tiny_sam, tmp_path):
    imported(tmp_path, cad_state())
    settings = RunFolder(tmp_path / "run").settings()
    with pytest.raises(SettingError, match="--data is needed"):
        train(settings.model_copy(update={"output": tmp_path / "new"}))
    with pytest.raises(SettingError, match="holds the base weights of this training"):
        train(settings.model_copy(update={"data": tmp_path}), overwrite=True)
    assert RunFolder(tmp_path / "run").base.is_file()
