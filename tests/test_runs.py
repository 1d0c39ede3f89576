"""The run folder: adapter files, checkpoints that cannot be used, and when a folder is free."""

import errno
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from samfit.config import write_config
from samfit.defaults import in_words
from samfit.errors import RunError, SettingError, StorageError
from samfit.methods import METHODS, attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import (
    RunFolder,
    load_adapter,
    read_adapter,
    read_checkpoint,
    require_free,
    save_adapter,
    save_checkpoint,
    versions,
)
from samfit.settings import TrainSettings
from samfit.testing import small_backbone
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts


def model(
    method: str = "cad", *, seed: int = 0, image_size: int = 32, classes: tuple[str, ...] = ("lesion",)
) -> AdaptedModel:
    return attach(small_backbone("sam-tiny", image_size=image_size, seed=seed), method, classes=classes)


def trained(method: str = "cad") -> AdaptedModel:
    """Return a model all of whose trained tensors and buffers have moved."""
    one = model(method)
    generator = torch.Generator().manual_seed(1)
    for tensor in one.adapter_state().values():
        if tensor.is_floating_point():
            tensor += 0.05 * torch.rand(tensor.shape, generator=generator)
        else:
            tensor += 3
    return one


@torch.no_grad()
def answer(one: AdaptedModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    frame = torch.randn(2, 3, 32, 32, generator=generator)
    extra = 255 * torch.rand(2, 6, 16, 16, generator=generator) if one.row.reads_image else None
    box = torch.tensor([[[2.0, 3.0], [25.0, 30.0]]]).repeat(2, 1, 1)
    return one(frame, extra, Prompts(box, torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]] * 2), has_box=True))


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_file_holds_what_was_trained_and_nothing_else(method, tmp_path):
    one = trained(method)
    save_adapter(tmp_path / "a.safetensors", one)
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parameters = {name for name, p in one.named_parameters() if p.requires_grad}
    own = {name for name, _ in one.named_buffers() if name.startswith("adapter.")}
    assert held.keys() == parameters | own
    assert any(name.startswith("backbone.") for name in held)
    assert (len(own) > 0) == (method == "cad")
    state = one.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in held.items())
    header_bytes = 8 + int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")
    tensor_bytes = sum(tensor.nbytes for tensor in held.values())
    assert (tmp_path / "a.safetensors").stat().st_size == header_bytes + tensor_bytes


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_model_with_the_adapter_answers_bit_by_bit_alike(method, tmp_path):
    one, fresh = trained(method), model(method)
    save_adapter(tmp_path / "a.safetensors", one)
    assert not torch.equal(answer(fresh), answer(one))
    load_adapter(tmp_path / "a.safetensors", fresh)
    assert torch.equal(answer(fresh), answer(one))
    for name, tensor in one.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_the_header_says_what_the_adapter_belongs_to(tmp_path):
    save_adapter(tmp_path / "a.safetensors", model(classes=("disc", "cup")))
    header, _ = read_adapter(tmp_path / "a.safetensors")
    assert header.method == "cad"
    assert header.backbone == "sam-tiny"
    assert (header.image_size, header.fit) == (32, "pad")
    assert header.classes == ("disc", "cup")
    assert header.base_sha256 == "random 0"
    assert header.versions == versions()
    assert {"samfit", "torch", "transformers", "python"} <= header.versions.keys()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"method": "decoder"}, "was made for method cad, but the model has method decoder"),
        ({"image_size": 64}, "was made for image size 32, but the model has image size 64"),
        ({"classes": ("cup", "disc")}, "was made for classes lesion, but the model has classes cup, disc"),
        (
            {"seed": 1},
            "was made for base weights with hash random 0, but the model has base weights with hash random 1",
        ),
    ],
)
def test_an_adapter_of_another_model_is_refused_with_what_it_was_made_for(other, said, tmp_path):
    save_adapter(tmp_path / "a.safetensors", model())
    target = model(**other)
    before = answer(target) if "image_size" not in other else None
    with pytest.raises(RunError) as raised:
        load_adapter(tmp_path / "a.safetensors", target)
    assert f"{tmp_path / 'a.safetensors'} {said}" in str(raised.value)
    if before is not None:
        assert torch.equal(answer(target), before)


def test_an_adapter_of_another_backbone_is_refused(tmp_path):
    save_adapter(tmp_path / "a.safetensors", model())
    target = attach(small_backbone("efficientsam-ti", image_size=32), "cad", classes=("lesion",))
    with pytest.raises(RunError, match="for backbone sam-tiny, but the model has backbone efficientsam-ti"):
        load_adapter(tmp_path / "a.safetensors", target)


def rewritten(path: Path, change) -> None:
    """Write an adapter file again with other tensors or another header."""
    with safetensors.safe_open(path, framework="pt") as file:
        state, header = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    values = json.loads(header["samfit"])
    changed = change(state, values)
    save_file(state, path, {"samfit": json.dumps(values if changed is None else changed)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state, _: state.__delitem__("adapter.conv_up.bias"), "1 tensors do not fit the model"),
        (lambda state, _: state.update(more=torch.zeros(1)), "the first is more"),
        (lambda state, _: state.update({"adapter.conv_up.bias": torch.zeros(3)}), "adapter.conv_up.bias"),
        (lambda _, header: header.__delitem__("backbone"), "its header cannot be read"),
        (lambda _, header: header.update(more=1), "its header cannot be read"),
        (lambda *_: [1, 2], "its header cannot be read"),
    ],
    ids=["missing", "unexpected", "shape", "header lacks", "header has more", "header is a list"],
)
def test_an_adapter_with_other_tensors_or_another_header_is_refused(change, said, tmp_path):
    path = tmp_path / "a.safetensors"
    save_adapter(path, model())
    rewritten(path, change)
    target = model()
    before = answer(target)
    with pytest.raises(RunError) as raised:
        load_adapter(path, target)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)
    assert torch.equal(answer(target), before)


def no_adapters(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = folder / "whole.safetensors"
    save_adapter(whole, model("decoder"))
    contents = {
        "text": b"no adapter at all",
        "empty": b"",
        "cut in the header": whole.read_bytes()[:1000],
        "cut in the tensors": whole.read_bytes()[:-1],
        "pickle": pickle.dumps({"a": 1}),
    }
    cases = {}
    for name, content in contents.items():
        cases[name] = folder / f"{name}.safetensors", "is not a safetensors file, or it is cut off"
        cases[name][0].write_bytes(content)
    save_file({"weight": torch.zeros(3)}, folder / "foreign.safetensors", {"format": "pt"})
    cases["foreign"] = folder / "foreign.safetensors", "no adapter of samfit: its header is missing"
    cases["missing"] = folder / "none.safetensors", "there is no such adapter file"
    (folder / "folder.safetensors").mkdir()
    cases["folder"] = folder / "folder.safetensors", "there is no such adapter file"
    return cases


def test_what_is_no_adapter_is_refused(tmp_path):
    for path, said in no_adapters(tmp_path).values():
        with pytest.raises(RunError) as raised:
            read_adapter(path)
        assert str(raised.value).startswith(str(path))
        assert said in str(raised.value)


CHECKPOINT = {"position": {}, "fingerprint": "f", "base_sha256": "b", "state": {}, "optimizer": {}}


class Code:
    """An object whose unpickling makes a folder."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    content = CHECKPOINT | {"state": {"weight": torch.arange(3.0)}}
    save_checkpoint(tmp_path / "last.ckpt", content)
    read = read_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(read["state"].pop("weight"), torch.arange(3.0))
    assert read == CHECKPOINT


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle 2", "pickle 5", "beside a sound checkpoint"])
def test_code_in_a_checkpoint_is_refused_and_not_run(how, tmp_path):
    path, trace = tmp_path / "last.ckpt", tmp_path / "it ran"
    if how == "torch":
        torch.save(Code(trace), path)
    elif how == "old torch":
        torch.save(Code(trace), path, _use_new_zipfile_serialization=False)
    elif how == "beside a sound checkpoint":
        torch.save(CHECKPOINT | {"state": Code(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Code(trace), protocol=int(how[-1])))
    with pytest.raises(RunError, match=r"was refused: .* a pickle with code in it, which was not run"):
        read_checkpoint(path)
    assert not trace.exists()
    if how.startswith("pickle"):  # the trap works
        pickle.loads(path.read_bytes())
        assert trace.is_dir()


def no_checkpoints(folder: Path) -> dict[str, bytes]:
    save_checkpoint(folder / "whole.ckpt", CHECKPOINT | {"state": {"weight": torch.zeros(1000)}})
    whole = (folder / "whole.ckpt").read_bytes()
    torch.save({"weight": torch.zeros(2)}, folder / "weights.pth")
    torch.save([1, 2], folder / "list.pth")
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    return {
        "text": b"no checkpoint at all\n",
        "empty": b"",
        "zeros": bytes(100),
        "cut": whole[: len(whole) // 2],
        "cut early": whole[:40],
        "cut by a byte": whole[:-1],
        "broken pickle": b"\x80\x02}q\x00.}",
        "broken newer pickle": b"\x80\x05N",
        "pops from nothing": b"\x80\x020",
        "cut number": b"\x80\x02J\x00",
        "weights": (folder / "weights.pth").read_bytes(),
        "list": (folder / "list.pth").read_bytes(),
        "zip": (folder / "other.zip").read_bytes(),
    }


def test_what_is_no_checkpoint_is_refused(tmp_path):
    for name, content in no_checkpoints(tmp_path).items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        with pytest.raises(RunError) as raised:
            read_checkpoint(path)
        assert str(raised.value).startswith(str(path)), name
        assert "checkpoint" in str(raised.value)
    with pytest.raises(RunError, match="there is no checkpoint to go on from"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_folder_is_free_until_a_run_is_started_in_it(tmp_path):
    run = RunFolder(tmp_path / "deep/run")
    require_free(run, overwrite=False)
    assert not (tmp_path / "deep").exists()
    run.path.mkdir(parents=True)
    (run.path / "notes.txt").write_text("mine")
    require_free(run, overwrite=False)
    for file in (run.config, run.adapter, run.checkpoint):
        file.write_bytes(b"")
        with pytest.raises(RunError) as raised:
            require_free(run, overwrite=False)
        for words in (f"--output {run.path} already holds a run", f"--resume {run.path}", "--overwrite"):
            assert words in str(raised.value)
        require_free(run, overwrite=True)
        assert file.exists()
        file.unlink()


@pytest.mark.parametrize("name", ["samples", "evaluation", "log.txt", "metrics.csv"])
def test_somebody_elses_files_with_the_names_of_a_run_are_not_replaced_unasked(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(RunError, match=f"holds {name}, which a run would replace.*--overwrite"):
        require_free(RunFolder(tmp_path), overwrite=False)
    require_free(RunFolder(tmp_path), overwrite=True)


def test_a_file_is_no_folder_for_a_run(tmp_path):
    (tmp_path / "run").write_text("mine")
    for overwrite in (False, True):
        for place in ("run", "run/deep/deeper"):
            with pytest.raises(RunError, match=f"--output {tmp_path}/{place}: {tmp_path}/run is a file"):
                require_free(RunFolder(tmp_path / place), overwrite=overwrite)
    assert (tmp_path / "run").read_text() == "mine"


def test_clearing_removes_what_a_run_writes_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path)
    for file in (run.config, run.adapter, run.checkpoint, run.metrics, run.summary, run.log):
        file.write_text("old")
    for folder in (run.samples, run.evaluation / "overlays"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    run.clear()


def test_what_may_not_be_removed_is_a_message(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.config.write_text("data: there")

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match=r"config\.yaml: .*check the folder and its permissions"):
        run.clear()


def test_settings_come_back_as_they_were_written(tmp_path):
    settings = TrainSettings(data=Path("d"), output=Path("o"), mask_values={"cell": 3}, learning_rate=1e-5)
    write_config(RunFolder(tmp_path).config, in_words(settings))
    assert RunFolder(tmp_path).settings() == settings
    write_config(RunFolder(tmp_path).config, in_words(settings) | {"method": "cda"})
    with pytest.raises(SettingError, match="unknown method 'cda'; did you mean 'cad'"):
        RunFolder(tmp_path).settings()


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_settings_is_no_run(there, tmp_path):
    path = tmp_path / "run"
    if there:
        path.mkdir()
    what = "it has no config.yaml" if there else "there is no such folder"
    with pytest.raises(RunError, match=f"is not a run of samfit: {what}"):
        RunFolder(path).settings()
