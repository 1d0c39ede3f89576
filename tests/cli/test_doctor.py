"""`samfit doctor` on small drawn data sets."""

import json

import numpy as np
import pytest
from PIL import Image

from samfit.cli import main


@pytest.fixture
def data(tmp_path):
    """A sound data set in the `folder` layout: two images to train on, one to test."""
    for split, names in {"train": ("a", "b"), "test": ("c",)}.items():
        for name in names:
            draw(tmp_path / split, name)
    return tmp_path


def draw(folder, name, foreground=255):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(ord(name)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:25] = foreground
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def test_a_sound_set_is_summed_up(data, capsys):
    assert main(["--quiet", "doctor", "--data", str(data)]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "images train 2, test 1" in lines
    assert "sizes 30 x 20 (3)" in lines
    assert "values 0 = background, 255 = foreground" in lines
    assert "foreground 25.0% of the area, 0 masks without it" in lines
    assert lines[-1] == "no faults"
    assert err == ""


def test_all_faults_are_listed_by_kind_and_end_with_status_2(data, capsys):
    (data / "train/masks/a.png").write_bytes(b"")
    draw(data / "train", "d", foreground=0)
    draw(data / "train", "e")
    (data / "train/images/e.png").write_bytes((data / "train/images/e.png").read_bytes()[:100])
    (data / "train/images/notes.txt").write_text("notes")
    assert main(["--quiet", "doctor", "--data", str(data)]) == 2
    out = capsys.readouterr().out
    errors, warnings, notes = out.index("2 errors:"), out.index("1 warning:"), out.index("1 note:")
    assert errors < out.index("masks/a.png") < warnings
    assert errors < out.index("images/e.png") < warnings
    assert warnings < out.index("masks/d.png") < notes
    assert notes < out.index("notes.txt")


def test_json_holds_everything_and_the_status_is_the_same(data, capsys):
    (data / "train/masks/a.png").write_bytes(b"")
    assert main(["doctor", "--data", str(data), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == {"train": 2, "test": 1}
    assert [fault["level"] for fault in found["faults"]] == ["error"]


def test_mask_values_tell_classes_apart(data, capsys):
    draw(data / "train", "d", foreground=128)
    assert main(["doctor", "--data", str(data), "--mask-values", "cell=128,nucleus=255", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["cell", "nucleus"]


def test_the_page_of_an_image_with_several_is_chosen(data, capsys):
    pages = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green")]
    pages[0].save(data / "train/images/d.tiff", save_all=True, append_images=pages[1:])
    Image.new("L", (30, 20), 255).save(data / "train/masks/d.png")
    assert main(["--quiet", "doctor", "--data", str(data)]) == 2
    assert "d.tiff" in capsys.readouterr().out
    assert main(["--quiet", "doctor", "--data", str(data), "--page", "1"]) == 0


def test_a_missing_folder_and_an_unknown_class_are_named(data, capsys):
    assert main(["doctor", "--data", str(data / "none")]) == 2
    assert f"{data / 'none'}: there is no such folder" in capsys.readouterr().err
    assert main(["doctor", "--data", str(data), "--classes", "forground"]) == 2
    assert "did you mean 'foreground'?" in capsys.readouterr().err
