"""Bad input of every kind: a message that names it, the right exit status, and nothing half-written."""

import csv
import errno
import glob
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from cli_support import TINY, content, drawn_data, finished_run, refuse, samfit, succeed, train, unchanged
from PIL import Image
from safetensors.torch import save_file
from support import real_data

from samfit.backbones import load_backbone
from samfit.data.drawn import draw_lesion

FOLDER = ("--dataset", "folder", *TINY, "--epochs", "1", "--method", "decoder")


@pytest.fixture(scope="session")
def lesions(tmp_path_factory):
    """A sound data set in the layout isic2016."""
    return drawn_data(tmp_path_factory)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run on `lesions`, not to be changed."""
    return finished_run(tmp_path_factory)


@pytest.fixture
def data(tmp_path):
    """A sound data set of three pairs in the layout `folder`."""
    for number in range(3):
        draw_pair(tmp_path / "data", f"p{number}", number)
    return tmp_path / "data"


def draw_pair(data: Path, name: str, seed: int, size: tuple[int, int] = (48, 36)) -> None:
    image, mask = draw_lesion(np.random.default_rng(seed), *size)
    for kind, array in (("images", image), ("masks", mask)):
        (data / "train" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(data / "train" / kind / f"{name}.png")


def cut(path: Path, share: float = 0.6) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def resize(path: Path, size: tuple[int, int]) -> None:
    Image.open(path).resize(size).save(path)


def train_refused(data: Path, *flags: object, status: int = 2) -> str:
    """Train into a new folder, which must fail and must not leave that folder behind."""
    output = data.parent / "run"
    message = refuse("train", "--data", data, "--output", output, *FOLDER, *flags, status=status)
    assert not output.exists()
    return message


# Data sets


SPOILED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (lambda d: shutil.rmtree(d), ["data: there is no such folder; --data must name"]),
    "a file": (lambda d: (shutil.rmtree(d), d.write_text("x")), ["data: there is no such folder"]),
    "empty folder": (
        lambda d: (shutil.rmtree(d), d.mkdir()),
        ["expected train/images and train/masks", "found no folder"],
    ),
    "image without mask": (
        lambda d: (d / "train/masks/p1.png").unlink(),
        ["train/images/p1.png: has no mask; expected", "train/masks/p1.png"],
    ),
    "truncated image": (
        lambda d: cut(d / "train/images/p1.png"),
        ["train/images/p1.png: the file is cut off"],
    ),
    "truncated mask": (lambda d: cut(d / "train/masks/p1.png"), ["train/masks/p1.png: the file is cut off"]),
    "empty image": (
        lambda d: (d / "train/images/p1.png").write_bytes(b""),
        ["train/images/p1.png: the file is empty (0 bytes)"],
    ),
    "empty mask": (
        lambda d: (d / "train/masks/p1.png").write_bytes(b""),
        ["train/masks/p1.png: the file is empty (0 bytes)"],
    ),
    "mask of another size": (
        lambda d: resize(d / "train/masks/p1.png", (24, 18)),
        ["train/masks/p1.png is 24 x 18 pixels", "train/images/p1.png is 48 x 36"],
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_a_data_set_that_cannot_be_used_is_refused_before_training(spoil, said, data):
    spoil(data)
    message = train_refused(data)
    for words in said:
        assert words in message
    assert samfit("--quiet", "doctor", "--data", data, "--dataset", "folder").status == 2


def test_doctor_lists_every_fault_of_a_data_set_at_once(data):
    for number in range(3, 8):
        draw_pair(data, f"p{number}", number)
    (data / "train/masks/p0.png").unlink()
    (data / "train/images/p1.png").write_bytes(b"")
    cut(data / "train/masks/p2.png")
    resize(data / "train/masks/p3.png", (36, 48))
    (data / "train/images/p4.png").unlink()
    Image.new("L", (48, 36)).save(data / "train/masks/p5.png")
    answer = samfit("--quiet", "doctor", "--data", data)
    assert answer.status == 2
    errors, warnings = (answer.out.index(title) for title in ("4 errors:", "2 warnings:"))
    assert errors < warnings
    for words in (
        "images/p0.png: has no mask",
        "images/p1.png: the file is empty",
        "masks/p2.png: the file is cut off",
        "masks/p3.png is 36 x 48 pixels",
    ):
        assert errors < answer.out.index(words) < warnings
    assert answer.out.index("masks/p4.png: a mask without image") > warnings
    assert answer.out.index("masks/p5.png: no pixel is foreground") > warnings
    message = train_refused(data)
    assert sum(f"p{number}.png" in message for number in range(4)) == 4


def test_a_mask_without_image_is_named_and_the_rest_is_trained_on(data, tmp_path):
    (data / "train/images/p1.png").unlink()
    answer = succeed("train", "--data", data, "--output", tmp_path / "run", *FOLDER)
    assert "train/masks/p1.png: a mask without image" in answer.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["images"] == {"train": 1, "validation": 1}


def test_masks_without_foreground_are_allowed_and_counted(data, tmp_path):
    for name in ("p0", "p2"):
        Image.new("L", (48, 36)).save(data / f"train/masks/{name}.png")
    answer = succeed("train", "--data", data, "--output", tmp_path / "run", *FOLDER, "--prompt", "click")
    assert "train/masks/p0.png: no pixel is foreground; allowed, and counted" in answer.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["empty_masks"] == {"foreground": 2}


def test_too_few_images_to_hold_one_back_are_refused(data):
    for name in ("p1", "p2"):
        for kind in ("images", "masks"):
            (data / "train" / kind / f"{name}.png").unlink()
    message = train_refused(data)
    assert "the data set has 1 training images; at least 2 needed" in message


def test_a_row_of_a_csv_file_that_points_nowhere_is_named(lesions, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(lesions, data)
    table = data / "ISBI2016_ISIC_Part1_Training_GroundTruth.csv"
    table.write_text(table.read_text().replace("drawn_0001.jpg", "drawn_9999.jpg"))
    message = train_refused(data, "--dataset", "isic2016")
    for words in (str(table), "row 2 (line 3)", "drawn_9999.jpg", "not found"):
        assert words in message


def test_a_row_of_a_prompts_file_that_points_nowhere_is_named(run, data, tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("image,x,y\np0.png,3,4\np1.png,3,4\np2.png,3,4\np9.png,3,4\n")
    out = tmp_path / "masks"
    message = refuse("predict", run, data / "train/images", "--output", out, "--prompts", prompts)
    assert f"{prompts}: 'p9.png' is none of the images to segment" in message
    assert not out.exists()


# Flags and settings


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--backbone", "sam-tny"],
            "--backbone sam-tny: unknown backbone 'sam-tny'; did you mean 'sam-tiny'?",
        ),
        (["--method", "cda"], "unknown method 'cda'; did you mean 'cad'?"),
        (["--dataset", "foldr"], "unknown dataset 'foldr'; did you mean 'folder'?"),
        (["--loss", "bce_iou"], "unknown loss 'bce_iou'; did you mean 'bce-iou'?"),
        (["--prompt", "fullbox"], "did you mean 'full-box'?"),
        (["--fit", "squeze"], "expected one of pad, squeeze; did you mean 'squeeze'?"),
        (["--weights", "randm"], "did you mean 'random'?"),
        (["--classes", "forground"], "did you mean 'foreground'?"),
        (["--epochs", "many"], "--epochs many: expected a whole number, at least 1"),
        (["--learning-rate", "nan"], "--learning-rate nan: expected a number, above 0 and at most 1"),
        (["--image-size", "100"], "--image-size 100: sam-tiny needs a multiple of 8; the nearest is"),
        (["--epoch", "3"], "did you mean '--epochs'?"),
        (["--mask-values", "cell=300000"], "the grey value of 'cell' is '300000'"),
    ],
)
def test_a_wrong_flag_is_answered_with_the_nearest_right_one(flags, said, data):
    assert said in train_refused(data, *flags)


def test_every_fault_of_a_config_is_listed(data, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "epochs: -3\nlearning-rate: fast\nmethdo: cad\nbackbone: sam-tny\naugment: flip\nclasses: [a, a]\n"
    )
    flags = ("--config", config, "--output", tmp_path / "run", "--data", data)
    message = refuse("train", *flags)
    for words in (
        "6 settings are wrong:",
        f"--epochs -3 (in {config}): expected a whole number, at least 1",
        f"--learning-rate fast (in {config}): expected a number",
        f"--methdo cad (in {config}): there is no such setting; did you mean '--method'?",
        f"--backbone sam-tny (in {config}): unknown backbone 'sam-tny'; did you mean 'sam-tiny'?",
        f"--augment flip (in {config}): expected one of none, flips, affine; did you mean 'flips'?",
        "'a' is named twice",
    ):
        assert words in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "epochs: [1\n", "just words", ""])
def test_a_config_that_is_no_mapping_is_named(text, data, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    assert f"--config {tmp_path / 'run.yaml'}: " in train_refused(data, "--config", tmp_path / "run.yaml")


def test_settings_of_a_run_that_were_damaged_are_all_named(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("epochs: 15", "epochs: 0").replace("cad", "cda"))
    message = refuse("evaluate", copy)
    assert "2 settings are wrong:" in message
    assert f"(in {copy / 'config.yaml'})" in message


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_named(command, run, data, tmp_path):
    output = ("--output", tmp_path / "out", data / "train/images") if command == "predict" else ()
    assert "--accelerator gpu: cannot be had" in refuse(command, run, *output, "--accelerator", "gpu")


# Checkpoints, adapters and base weights


class Code:
    """An object whose unpickling makes a folder."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


DAMAGES = ["text", "empty", "cut", "pickle", "torch"]


def damage(path: Path, how: str, trace: Path) -> None:
    """Replace a file by one that is not what it should be; `pickle` and `torch` hold code."""
    if how == "text":
        path.write_text("<html>not found</html>\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        cut(path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Code(trace)))
    else:
        torch.save({"weight": torch.zeros(2), "more": Code(trace)}, path)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Base weights of sam-tiny in a file."""
    path = tmp_path_factory.mktemp("weights") / "base.pth"
    torch.save(load_backbone("sam-tiny", weights="random", seed=5).state_dict(), path)
    return path


@pytest.mark.parametrize("how", DAMAGES)
def test_base_weights_that_are_none_are_refused_and_nothing_in_them_runs(how, weights, data, tmp_path):
    file, trace = Path(shutil.copy(weights, tmp_path / "base.pth")), tmp_path / "it ran"
    damage(file, how, trace)
    message = train_refused(data, "--weights", file)
    said = "is a pickle with code in it" if how in ("pickle", "torch") else "is cut off or not a checkpoint"
    assert f"{file} {said}" in message
    assert "expected a state dict as .pth, .pt or .safetensors" in message.replace("Expected", "expected")
    assert not trace.exists()


def test_base_weights_of_another_backbone_are_refused(data, tmp_path):
    torch.save(
        load_backbone("efficientsam-ti", weights="random", image_size=64).state_dict(), tmp_path / "e.pth"
    )
    message = train_refused(data, "--weights", tmp_path / "e.pth")
    assert f"{tmp_path / 'e.pth'} does not fit sam-tiny" in message
    assert "it looks like weights of efficientsam-ti: use --backbone efficientsam-ti" in message
    assert "missing (" in message
    assert "unexpected (" in message


def test_base_weights_that_are_not_there_are_named(data, tmp_path):
    message = train_refused(data, "--weights", tmp_path / "none.pth")
    assert f"--weights {tmp_path / 'none.pth'}: the file is not there" in message


def test_base_weights_that_changed_after_training_are_refused(weights, data, tmp_path):
    file, run = Path(shutil.copy(weights, tmp_path / "base.pth")), tmp_path / "run"
    succeed("train", "--data", data, "--output", run, *FOLDER, "--weights", file)
    succeed("evaluate", run, "--split", "validation", "--accelerator", "cpu")
    torch.save(load_backbone("sam-tiny", weights="random", seed=6).state_dict(), file)
    expected = json.loads((run / "summary.json").read_text())["base_sha256"]
    with unchanged(run):
        message = refuse("evaluate", run, "--split", "validation")
    assert f"was made for base weights with hash {expected}" in message


@pytest.fixture
def stopped(run, tmp_path):
    """A run that was stopped before its end."""
    copy = Path(shutil.copytree(run, tmp_path / "stopped"))
    (copy / "summary.json").unlink()
    return copy


@pytest.mark.parametrize("part", ["position", "optimizer"])
def test_a_checkpoint_with_the_right_names_and_something_else_in_them_is_refused(part, stopped):
    content = torch.load(stopped / "last.ckpt", weights_only=True)
    content[part] = {"surprise": 1}
    torch.save(content, stopped / "last.ckpt")
    message = refuse("train", "--resume", stopped)
    assert f"{stopped / 'last.ckpt'} does not fit this run or this version of samfit" in message


@pytest.mark.parametrize("seed", [20261231, 2**32 - 1])
def test_any_seed_will_do(seed, data, tmp_path):
    succeed("train", "--data", data, "--output", tmp_path / "run", *FOLDER, "--seed", seed)


def test_a_date_that_is_none_in_a_config_is_said(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 2024-13-45\n")
    message = refuse(
        "train", "--config", tmp_path / "run.yaml", "--data", tmp_path, "--output", tmp_path / "r"
    )
    assert "run.yaml: not a YAML file: month must be in 1..12" in message


def test_a_sound_run_that_was_stopped_goes_on(stopped):
    succeed("train", "--resume", stopped)
    assert (stopped / "summary.json").is_file()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_checkpoint_that_is_none_is_refused_and_nothing_in_it_runs(how, stopped, tmp_path):
    file, trace = stopped / "last.ckpt", tmp_path / "it ran"
    damage(file, how, trace)
    with unchanged(stopped):
        message = refuse("train", "--resume", stopped)
    assert str(file) in message
    said = {
        "pickle": "a pickle with code in it, which was not run",
        "torch": "a pickle with code in it, which was not run",
        "cut": "cannot be read: it is cut off, or not a checkpoint",
        "empty": "cannot be read: it is cut off, or not a checkpoint",
        "text": "was refused: it is not a checkpoint of samfit",
    }
    assert said[how] in message
    assert not trace.exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--seed", "1"), ["was started on base weights with hash", "--weights random now has"]),
        (("--method", "decoder"), ["tensors do not fit the model"]),
    ],
    ids=["another base", "another method"],
)
def test_a_checkpoint_of_another_run_is_refused(flags, said, stopped, lesions, tmp_path):
    train(lesions, tmp_path / "other", "--epochs", "1", *flags)
    shutil.copy(tmp_path / "other/last.ckpt", stopped / "last.ckpt")
    with unchanged(stopped):
        message = refuse("train", "--resume", stopped)
    for words in said:
        assert words in message


def test_a_run_whose_data_have_changed_does_not_go_on(stopped, lesions, tmp_path):
    other = tmp_path / "lesions"
    shutil.copytree(lesions, other)
    for path in list(other.rglob("drawn_0003*")):
        resize(path, (90, 60))
    config = stopped / "config.yaml"
    config.write_text(config.read_text().replace(str(lesions), str(other)))
    with unchanged(stopped):
        message = refuse("train", "--resume", stopped)
    assert f"{stopped} cannot go on: the files of {other} have changed" in message


@pytest.mark.parametrize("missing", ["config.yaml", "last.ckpt"])
def test_a_run_without_its_files_does_not_go_on(missing, stopped):
    (stopped / missing).unlink()
    with unchanged(stopped):
        assert str(stopped) in refuse("train", "--resume", stopped)


def other_header(path: Path, **values: object) -> None:
    """Give an adapter file other values in its header."""
    with safetensors.safe_open(path, framework="pt") as file:
        state, header = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(state, path, {"samfit": json.dumps(json.loads(header["samfit"]) | values)})


def refuse_adapter(run: Path, data: Path) -> list[str]:
    """Evaluate and predict, which must fail and change nothing; return both messages."""
    out = run.parent / "masks"
    with unchanged(run):
        messages = [
            refuse("evaluate", run, "--accelerator", "cpu"),
            refuse("predict", run, data / "train/images", "--output", out, "--accelerator", "cpu"),
        ]
    assert not out.exists()
    return messages


@pytest.mark.parametrize("how", DAMAGES)
def test_an_adapter_that_is_none_is_refused_and_nothing_in_it_runs(how, stopped, data, tmp_path):
    file, trace = stopped / "adapter.safetensors", tmp_path / "it ran"
    damage(file, how, trace)
    for message in refuse_adapter(stopped, data):
        assert f"{file} is not a safetensors file, or it is cut off" in message
    assert not trace.exists()


def test_an_adapter_of_another_program_is_refused(stopped, data):
    file = stopped / "adapter.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    for message in refuse_adapter(stopped, data):
        assert f"{file} holds tensors, but no adapter of samfit" in message


def test_a_run_without_adapter_is_refused(stopped, data):
    file = stopped / "adapter.safetensors"
    file.unlink()
    for message in refuse_adapter(stopped, data):
        assert f"{file}: there is no such adapter file; was the run interrupted" in message


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--image-size", "32"), "was made for image size 32, but the model has image size 64"),
        (("--method", "decoder"), "was made for method decoder, but the model has method cad"),
        (("--seed", "1"), "was made for base weights with hash"),
    ],
    ids=["image size", "method", "base weights"],
)
def test_an_adapter_under_another_run_is_refused_with_what_it_was_made_for(
    flags, said, stopped, lesions, data, tmp_path
):
    train(lesions, tmp_path / "other", "--epochs", "1", *flags)
    file = Path(shutil.copy(tmp_path / "other/adapter.safetensors", stopped))
    base = json.loads((tmp_path / "other/summary.json").read_text())["base_sha256"]
    for message in refuse_adapter(stopped, data):
        assert f"{file} {said}" in message
        assert "hash" not in said or base in message


def test_an_adapter_of_another_backbone_is_refused_with_its_name(stopped, data):
    file = stopped / "adapter.safetensors"
    other_header(file, backbone="sam-vit-b")
    for message in refuse_adapter(stopped, data):
        assert f"{file} was made for backbone sam-vit-b, but the model has backbone sam-tiny" in message


# Output folders


def test_an_output_folder_that_holds_a_run_is_left_alone(run, data):
    flags = ("--data", data, *FOLDER)
    with unchanged(run):
        message = refuse("train", "--output", run, *flags)
    for words in (f"--output {run} already holds a run", f"--resume {run}", "--overwrite"):
        assert words in message


def test_overwriting_replaces_a_run_only_once_everything_else_is_right(stopped, data):
    for spoil, _ in (SPOILED["image without mask"], SPOILED["empty mask"]):
        spoil(data)
        with unchanged(stopped):
            refuse("train", "--output", stopped, "--data", data, *FOLDER, "--overwrite")
    draw_pair(data, "p1", 1)
    with unchanged(stopped):
        refuse("train", "--output", stopped, "--data", data, *FOLDER, "--overwrite", "--weights", "none.pth")
    succeed("train", "--output", stopped, "--data", data, *FOLDER, "--overwrite")
    assert json.loads((stopped / "summary.json").read_text())["images"] == {"train": 2, "validation": 1}


def test_a_file_in_place_of_the_output_folder_is_left_alone(data, tmp_path):
    (tmp_path / "mine").write_text("mine")
    message = refuse("train", "--output", tmp_path / "mine", "--data", data, *FOLDER)
    assert f"--output {tmp_path / 'mine'}: {tmp_path / 'mine'} is a file" in message
    message = refuse("train", "--output", tmp_path / "mine/run", "--data", data, *FOLDER)
    assert f"--output {tmp_path / 'mine/run'}: {tmp_path / 'mine'} is a file" in message
    assert (tmp_path / "mine").read_text() == "mine"


# A full disk


def fill_disk(monkeypatch, function: str, after: int) -> None:
    """Let the disk be full at a call of `os.replace` or `os.fsync`, the one after so many."""
    real, calls = getattr(os, function), []

    def refuse_to_write(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, function, refuse_to_write)


def assert_whole(folder: Path) -> None:
    """Check that no file below `folder` is half-written or left over."""
    for name, held in content(folder).items():
        assert not Path(name).name.startswith(".tmp-")
        if name.endswith(".json"):
            json.loads(held)
        elif name.endswith(".png"):
            with Image.open(folder / name) as picture:
                picture.load()
        elif name.endswith(".ckpt"):
            torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize("after", range(8))
def test_a_disk_that_fills_up_during_training_is_said_and_leaves_whole_files(
    after, data, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        fill_disk(patch, "replace", after)
        message = refuse("train", "--data", data, "--output", run, *FOLDER, status=1)
    assert f"cannot write {run}/" in message
    assert "the disk is full; free some space and run the command again" in message
    assert_whole(run)
    if (run / "last.ckpt").exists():
        succeed("train", "--resume", run)
        succeed("evaluate", run, "--split", "validation", "--accelerator", "cpu")


def test_a_disk_that_is_full_only_when_asked_to_keep_what_it_took_is_full_too(data, tmp_path, monkeypatch):
    fill_disk(monkeypatch, "fsync", 1)
    message = refuse("train", "--data", data, "--output", tmp_path / "run", *FOLDER, status=1)
    assert f"cannot write {tmp_path / 'run'}/last.ckpt: the disk is full" in message
    assert list(content(tmp_path / "run")) == ["config.yaml", "log.txt"]


@pytest.mark.parametrize("after", range(3))
def test_a_disk_that_fills_up_during_evaluation_is_said(after, stopped, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk(patch, "replace", after)
        message = refuse("evaluate", stopped, "--overlays", 1, "--accelerator", "cpu", status=1)
    assert f"cannot write {stopped}/evaluation/" in message
    assert_whole(stopped)
    assert not (stopped / "evaluation/summary.json").exists()


@pytest.mark.parametrize("after", range(3))
def test_a_disk_that_fills_up_during_prediction_is_said(after, run, data, tmp_path, monkeypatch):
    out = tmp_path / "masks"
    with monkeypatch.context() as patch:
        fill_disk(patch, "replace", after)
        message = refuse("predict", run, data / "train/images", "--output", out, status=1)
    assert f"cannot write {out}/p{after}.png: the disk is full" in message
    assert list(content(out)) == [f"p{number}.png" for number in range(after)]


def test_a_log_that_cannot_be_written_ends_nothing_and_shows_no_traceback(data, tmp_path, monkeypatch):
    def full(handler):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("samfit.engine.training._LogFile.flush", full)
    answer = succeed("train", "--data", data, "--output", tmp_path / "run", *FOLDER)
    assert "epoch 1 of" in answer.err
    assert "Logging error" not in answer.err
    assert (tmp_path / "run/summary.json").is_file()


SMALL_DISK = """
import resource, sys
from samfit.cli import main
train, predict = (part.split("|") for part in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
print(main(["-q", "train", *train]), main(["-q", "predict", *predict]))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux limits files so")
def test_a_real_limit_to_what_is_written_is_said(run, data, tmp_path):
    """No file may grow beyond 2000 bytes: checkpoints and overlays do not fit."""
    training = ["--data", data, "--output", tmp_path / "run", *FOLDER]
    predicting = [run, data / "train/images", "--output", tmp_path / "out", "--accelerator", "cpu"]
    predicting += ["--overlay"]
    process = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, *("|".join(map(str, part)) for part in (training, predicting))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.stdout == "1 1\n", process.stderr
    assert "Traceback" not in process.stderr
    errors = [line for line in process.stderr.splitlines() if "error" in line]
    assert len(errors) == 2
    assert f"cannot write {tmp_path / 'run/last.ckpt'}: the disk is full" in errors[0]
    assert f"cannot write {tmp_path / 'out'}/p0_overlay.png: the disk is full" in errors[1]
    for folder in (tmp_path / "run", tmp_path / "out"):
        assert_whole(folder)


# The collection of faulty data sets


def dirty_cases() -> dict[str, dict]:
    """Read the table; without the collection one row stands for all and is skipped, visibly, when it runs."""
    try:
        table = json.loads((real_data("dirty") / "cases.json").read_text(encoding="utf-8"))
    except pytest.skip.Exception:
        return {"collection": {"case": "collection", "expect": "error"}}
    return {case["case"]: case for case in table["cases"]}


DIRTY = dirty_cases()
REFUSED = [name for name, case in DIRTY.items() if case["expect"] == "error"]
NAMED_OTHERWISE = {"refuge_rater_missing": "drishtiGS_004_seg_cup_3.png"}
UNUSUAL = [
    "tiny_image",
    "extreme_aspect",
    "exif_orientation_6",
    "non_ascii_name",
    "unicode_nfd_nfc",
    "long_name",
    "dots_in_name",
    "image_16bit_grey",
    "image_cmyk",
    "mask_no_foreground",
    "mask_palette_dark",
]


def copy_case(name: str, data: Path) -> dict:
    """Copy a case into `data`, or make it there as its table says; return its row."""
    collection, case = real_data("dirty"), DIRTY[name]
    source = collection / ("good_pair" if case.get("make_in_test") else name)
    shutil.copytree(source, data, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for path in (data, *data.rglob("*")):
        path.chmod(0o755)  # the collection may be read-only
    if case.get("make_in_test"):
        image = data / case["files"][0]
        stem = unicodedata.normalize("NFC", image.stem) if name == "unicode_nfd_nfc" else image.stem
        shutil.copyfile(data / "train/masks/good_IMD002.png", data / f"train/masks/{stem}.png")
        if name == "decompression_bomb":
            image.write_bytes(bomb())
        else:
            shutil.copyfile(data / "train/images/good_IMD002.jpg", image)
    return case


def bomb() -> bytes:
    """Return a PNG of one pixel whose header says 60000 x 60000."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, format="PNG")
    start, after = file.getvalue()[:12], file.getvalue()[33:]
    header = b"IHDR" + 2 * (60000).to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return start + header + zlib.crc32(header).to_bytes(4, "big") + after


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_data_set_is_not_trained_on(name, tmp_path):
    data = tmp_path / "data"
    case = copy_case(name, data)
    if case["layout"] == "folder" and name != "empty_folders":  # so that there are enough
        for number in range(2):
            draw_pair(data, f"sound_{number}", number)
    message = train_refused(data, "--dataset", case["layout"])
    for file in [NAMED_OTHERWISE[name]] if name in NAMED_OTHERWISE else case["files"]:
        assert file in message
    assert "sound_" not in message


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    """All unusual but sound cases as one data set that was trained on; the masks of its images in `out`."""
    place = tmp_path_factory.mktemp("unusual")
    data, run = place / "data", place / "run"
    for name in UNUSUAL:
        copy_case(name, data)
    flags = ("--dataset", "folder", *TINY, "--epochs", "2", "--augment", "affine")
    answer = succeed("train", "--data", data, "--output", run, *flags)
    (place / "train.err").write_text(answer.err, encoding="utf-8")
    flags = ("--overlay", "--probabilities", "--accelerator", "cpu")
    succeed("predict", run, data / "train/images", "--output", place / "out", *flags)
    return place


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_image_is_answered_at_its_own_size_and_under_its_own_name(name, unusual):
    case = DIRTY[name]
    for file in map(Path, case["files"]):
        image = next((unusual / "data/train/images").glob(f"{glob.escape(file.stem)}.*"))
        for ending in ("", "_probability", "_overlay"):
            with Image.open(unusual / "out" / f"{image.stem}{ending}.png") as picture:
                assert list(picture.size) == case["read"].get("image_size", [176, 132])
        assert case["expect"] != "warning" or file.name in (unusual / "train.err").read_text()


def test_every_unusual_image_is_scored_under_its_own_name(unusual):
    names = set()
    for split in ("train", "validation"):
        succeed("evaluate", unusual / "run", "--split", split, "--accelerator", "cpu")
        with (unusual / "run/evaluation/per_image.csv").open(encoding="utf-8", newline="") as file:
            names |= {row["image"] for row in csv.DictReader(file)}
    stems = {path.stem for path in (unusual / "data/train/images").iterdir()}
    assert names == {unicodedata.normalize("NFC", stem) for stem in stems}
    assert len(names) > len(UNUSUAL)


def test_an_unusual_data_set_is_counted_in_the_summary(unusual):
    summary = json.loads((unusual / "run/summary.json").read_text())
    images = len(list((unusual / "data/train/images").iterdir()))
    assert sum(summary["images"].values()) == images
    assert summary["empty_masks"] == {"foreground": 1}
