"""Runs as the published code saves them: there and back, and what cannot go there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_models import GOLDEN_CARD
from published_files import KINDS, MEDICAL_CARD, answer, imported, know, medical_state
from torch import Tensor

from samfit.backbones import load_backbone
from samfit.config import write_config
from samfit.defaults import in_words, resolve
from samfit.engine.export import export
from samfit.engine.importing import import_checkpoint
from samfit.engine.models import build_model, open_run
from samfit.errors import RunError
from samfit.methods import attach
from samfit.runs import RunFolder, save_adapter
from samfit.settings import ExportSettings, ImportSettings, TrainSettings


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """A kind of checkpoint, on a tiny SAM that stands in the table."""
    know(monkeypatch, KINDS[request.param].card)
    return KINDS[request.param]


@pytest.fixture
def tiny_sam(monkeypatch):
    know(monkeypatch, GOLDEN_CARD)


def exported(run: Path, output: Path | None = None, **settings: Any) -> Path:
    return export(ExportSettings(run=run, output=output, **settings))


def made_run(folder: Path, classes: tuple[str, ...] = ("foreground",), **given: Any) -> RunFolder:
    """Make the folder of a run as training leaves it, with every trained tensor moved."""
    values = {"backbone": GOLDEN_CARD.name, "weights": "random", "data": folder, "output": folder / "run"}
    settings = resolve(TrainSettings(**(values | given)))
    run = RunFolder(folder / "run")
    model = build_model(settings, classes)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1
            )
    save_adapter(run.adapter, model)
    write_config(run.config, in_words(settings))
    return run


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


# There and back


def test_what_was_imported_is_exported_as_it_was(kind, tmp_path):
    state = kind.make()
    imported(tmp_path, state, wrapped=kind.wrapped)
    content = torch.load(exported(tmp_path / "run"), weights_only=True)
    if kind.wrapped:
        assert content.keys() == {"state_dict"}
        content = content["state_dict"]
    for name in state:
        if "Depth_Adapter" in name:  # no image passes it, so the run does not hold it
            state[name] = torch.zeros_like(state[name])
    assert_same(content, state)


@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_what_was_exported_is_imported_as_it_was(kind, tmp_path, format):
    before = imported(tmp_path, kind.make())
    path = exported(tmp_path / "run", format=format)
    assert path == tmp_path / f"run/published.{format}"
    again = RunFolder(import_checkpoint(ImportSettings(file=path, output=tmp_path / "again")))
    assert again.base.read_bytes() == before.folder.base.read_bytes()
    assert_same(open_run(again).model.adapter_state(), before.model.adapter_state())


@pytest.mark.parametrize("method", ["cad", "sam-adapter"])
def test_a_run_of_ones_own_gives_the_same_masks_when_it_is_imported(tiny_sam, tmp_path, method):
    own = open_run(made_run(tmp_path, method=method))
    path = exported(tmp_path / "run", tmp_path / "file.pth")
    settings = ImportSettings(file=path, output=tmp_path / "again", fit="pad")
    again = open_run(RunFolder(import_checkpoint(settings)))
    assert torch.equal(answer(again), answer(own))


def test_a_run_trained_from_an_imported_one_can_go_back_at_another_image_size(monkeypatch, tmp_path):
    know(monkeypatch, MEDICAL_CARD)
    imported(tmp_path, medical_state(image_size=256))
    (tmp_path / "new").mkdir()
    trained = made_run(
        tmp_path / "new",
        method="medical-adapter",
        variant="medical-sam-adapter",
        weights=str(RunFolder(tmp_path / "run").base),
        image_size=256,
    )
    path = exported(trained.path, tmp_path / "file.pth")
    again = open_run(RunFolder(import_checkpoint(ImportSettings(file=path, output=tmp_path / "again"))))
    assert torch.equal(answer(again), answer(open_run(trained)))


@pytest.mark.parametrize("method", ["decoder", "lora", "full"])
def test_a_method_without_layers_of_its_own_gives_plain_weights(tiny_sam, tmp_path, method):
    own = open_run(made_run(tmp_path, method=method))
    path = exported(tmp_path / "run")
    plain = load_backbone(GOLDEN_CARD.name, weights=path)
    assert torch.allclose(answer(own, attach(plain, "decoder")), answer(own), atol=1e-4)


# What is refused


def refused(run: RunFolder, output: Path | None = None, **settings: Any) -> str:
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(RunError) as caught:
        exported(run.path, output, **settings)
    assert sorted(path.name for path in run.path.iterdir()) == before
    return str(caught.value)


ELSEWHERE = {
    "another image size": ({"method": "cad", "image_size": 64}, "CAD: it works at 128 px, not at 64"),
    "several classes": (
        {"method": "cad", "classes": ("disc", "cup")},
        "CAD: it gives masks for at most 1 of 2 classes",
    ),
    "options": (
        {"method": "sam-adapter", "late_blocks": 2},
        "CAD's SAM-Adapter: it does not know --late-blocks",
    ),
    "two reasons": (
        {"method": "sam-adapter", "late_blocks": 2, "image_size": 64},
        "it works at 128 px, not at 64, and it does not know --late-blocks",
    ),
    "another backbone": ({"method": "cad", "backbone": "efficientsam-ti"}, "CAD: it has no efficientsam-ti"),
    "other blocks": (
        {"method": "medical-adapter", "backbone": "golden-tiny"},
        "Medical SAM Adapter: it builds the backbone in another way",
    ),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_run_that_the_published_code_would_not_repeat_is_refused(monkeypatch, tmp_path, case):
    settings, expected = ELSEWHERE[case]
    know(monkeypatch, MEDICAL_CARD if case == "other blocks" else GOLDEN_CARD)
    given = {"image_size": 128} | settings
    message = refused(made_run(tmp_path, **given))
    assert str(tmp_path / "run") in message
    assert expected in message


def test_random_position_tables_of_another_size_are_refused(monkeypatch, tmp_path):
    know(monkeypatch, MEDICAL_CARD)
    run = made_run(tmp_path, method="medical-adapter", variant="medical-sam-adapter", image_size=128)
    assert "random position tables were drawn for 128 px" in refused(run)


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(tiny_sam, tmp_path):
    run = made_run(tmp_path, method="cad")
    path = tmp_path / "file.pth"
    path.write_text("mine")
    assert "is there already" in refused(run, path)
    assert path.read_text() == "mine"
    exported(run.path, path, overwrite=True)
    assert torch.load(path, weights_only=True)
    assert "the run itself needs this file" in refused(
        run, run.path / "adapter.safetensors", format="safetensors"
    )
    assert "is a folder" in refused(run, _folder(tmp_path / "folder.pth"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run of samfit"):
        exported(tmp_path)
