"""`samfit merge` as a user sees it: the file, where it goes, training on from it, and what is refused."""

from pathlib import Path

import pytest
from cli_support import content, drawn_data, refuse, samfit, succeed, train, unchanged

from samfit.backbones.weights import read_checkpoint
from samfit.config import write_config
from samfit.defaults import in_words, resolve
from samfit.methods import METHODS
from samfit.settings import TrainSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn_data(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A run of a method that can be merged; each test writes to a file of its own."""
    folder = tmp_path_factory.mktemp("merge") / "my run"
    train(data, folder, "--method", "lora", "--epochs", "1")
    return folder


def test_the_file_lies_in_the_run_and_a_training_goes_on_from_it(run, data, tmp_path):
    before = content(run)
    answer = succeed("merge", run)
    assert answer.out == f"{run / 'merged.pth'}\n"
    assert (
        "samfit: made for --image-size 64 --fit pad; with --prompt full-box, lesion is mask 0" in answer.err
    )
    assert content(run).keys() - before.keys() == {"merged.pth"}
    assert {name: content(run)[name] for name in before} == before
    weights = ("--weights", run / "merged.pth", "--method", "decoder", "--epochs", "1")
    train(data, tmp_path / "next", *map(str, weights))
    scores = succeed("evaluate", tmp_path / "next", "--accelerator", "cpu")
    assert "base model" in scores.out


@pytest.mark.parametrize(
    ("format", "names"),
    [
        ("safetensors", {"merged.safetensors"}),
        ("transformers", {"merged/config.json", "merged/model.safetensors"}),
    ],
)
def test_other_formats_have_names_of_their_own(run, format, names):
    before = content(run).keys()
    answer = succeed("merge", run, "--format", format)
    assert content(run).keys() - before == names
    assert Path(answer.out.strip()).exists()


def test_what_is_there_already_stays_unless_overwrite_is_given(run, tmp_path):
    output = tmp_path / "weights.pth"
    output.write_text("somebody else's")
    with unchanged(tmp_path):
        message = refuse("merge", run, "--output", output)
    assert f"{output} is there already; choose another --output, or replace it with --overwrite" in message
    succeed("merge", run, "--output", output, "--overwrite")
    assert read_checkpoint(output)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    succeed("merge", run, "--output", folder, "--format", "transformers")
    assert content(folder).keys() == {"notes.txt", "config.json", "model.safetensors"}
    with unchanged(tmp_path):
        message = refuse("merge", run, "--output", folder, "--format", "transformers")
    assert f"{folder / 'config.json'} is there already" in message


def test_a_run_that_replaces_another_removes_its_merged_weights(data, tmp_path):
    run = tmp_path / "run"
    flags = ("--method", "decoder", "--epochs", "1")
    train(data, run, *flags)
    for format in ("pth", "safetensors", "transformers"):
        succeed("merge", run, "--format", format)
    train(data, run, *flags, "--overwrite")
    assert not [path.name for path in run.iterdir() if path.name.startswith("merged")]


@pytest.mark.parametrize("method", [row.name for row in METHODS.values() if not row.mergeable])
def test_a_method_that_adds_layers_is_refused_with_the_way_out(tmp_path, method):
    settings = TrainSettings(data=tmp_path, output=tmp_path, backbone="sam-tiny", method=method)
    write_config(tmp_path / "config.yaml", in_words(resolve(settings)))
    with unchanged(tmp_path):
        message = refuse("merge", tmp_path)
    assert f"{method} cannot be merged: it adds layers that no plain backbone has" in message
    assert "'samfit export'" in message


def test_what_cannot_be_the_output_is_refused_before_anything_is_written(run, data, tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").write_text("")
    outputs = {
        "weights.bin": ("expected a name that ends in .pth or .pt for --format pth", "pth"),
        "weights.pth": ("expected a name that ends in .safetensors for --format safetensors", "safetensors"),
        "folder.pth": ("is a folder; give the name of a new file", "pth"),
        "file": ("is a file; give the name of a new folder", "transformers"),
        "file/weights.pth": ("is a file; give the name of a new folder", "pth"),
    }
    for name, (reason, format) in outputs.items():
        with unchanged(tmp_path):
            message = refuse("merge", run, "--output", tmp_path / name, "--format", format)
        assert reason in message
        assert str(tmp_path / name.partition("/")[0]) in message


def test_what_the_run_needs_is_never_replaced(run, data, tmp_path):
    succeed("merge", run, "--output", tmp_path / "base.pth")
    second = tmp_path / "second"
    weights = ("--weights", str(tmp_path / "base.pth"), "--method", "decoder", "--epochs", "1")
    train(data, second, *weights)
    for output in (tmp_path / "base.pth", second / "adapter.safetensors"):
        format = output.suffix.removeprefix(".")
        with unchanged(tmp_path):
            message = refuse("merge", second, "--output", output, "--format", format, "--overwrite")
        assert f"{output}: the run itself needs this file; choose another --output" in message


def test_what_is_no_finished_run_is_refused(tmp_path, run):
    assert "is not a run of samfit: there is no such folder" in refuse("merge", tmp_path / "nothing")
    started = tmp_path / "started"
    started.mkdir()
    (started / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with unchanged(started):
        assert "there is no such adapter file" in refuse("merge", started)


def test_a_wrong_format_is_refused_with_the_nearest(run):
    assert "--format ptj: expected one of pth, safetensors, transformers; did you mean 'pth'?" in refuse(
        "merge", run, "--format", "ptj"
    )


def test_quietly_the_path_alone_is_printed(run, tmp_path):
    answer = samfit("--quiet", "merge", run, "--output", tmp_path / "w.pth")
    assert (answer.status, answer.out) == (0, f"{tmp_path / 'w.pth'}\n")
    assert "made for" not in answer.err
