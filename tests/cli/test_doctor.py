"""`samfit doctor` on small drawn data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samfit.cli import main
from samfit.report.overlays import prediction_colour


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
    assert "pairs train 2, test 1" in lines
    assert "images RGB, 8 bit (3)" in lines
    assert "masks grey, 8 bit (3)" in lines
    assert "read as values 0/1 or 0/largest: above 0 is foreground" in lines
    assert "duplicates 0, 0 between splits" in lines
    assert "sizes 30 x 20 (3)" in lines
    assert "values 0 = background, 255 = foreground" in lines
    assert "foreground 25.0% of the area, masks without it: 0" in lines
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


def pixels_of(path: Path, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(Image.open(path)) == np.uint8(colour)).all(axis=2).sum())


def test_a_sheet_shows_images_of_each_split_with_their_masks(data, tmp_path_factory, capsys):
    sheet = tmp_path_factory.mktemp("sheets") / "new" / "sheet.png"
    assert main(["--quiet", "doctor", "--data", str(data), "--sheet", str(sheet)]) == 0
    first = sheet.read_bytes()
    with Image.open(sheet) as picture:
        assert picture.size[0] > 2 * 240  # two pictures beside each other
        assert picture.size[1] > 2 * 240  # two splits below each other
    assert pixels_of(sheet, prediction_colour(0)) > 800  # the legend has 200, each outline more
    assert pixels_of(sheet, (190, 0, 0)) == 0
    draw(data / "train", "d")
    (data / "train/masks/d.png").write_bytes(b"")
    assert main(["--quiet", "doctor", "--data", str(data), "--sheet", str(sheet)]) == 2
    assert sheet.read_bytes() != first
    assert pixels_of(sheet, (190, 0, 0)) > 0
    assert list(sheet.parent.iterdir()) == [sheet]


def test_a_sheet_that_is_no_png_or_lies_in_the_data_is_refused_before_anything_is_read(data, capsys):
    image = data / "train/images/a.png"
    before = image.read_bytes()
    for sheet, words in ((data.parent / "sheet.jpg", "ends in .png"), (image, "lies in the data set")):
        assert main(["doctor", "--data", str(data), "--sheet", str(sheet)]) == 2
        assert words in capsys.readouterr().err
    assert image.read_bytes() == before
    assert not (data.parent / "sheet.jpg").exists()


def test_groups_are_summed_up(data, tmp_path_factory, capsys):
    table = tmp_path_factory.mktemp("tables") / "patients.csv"
    table.write_text("image,group\na,anna\nb,ben\nc,carl\n")
    assert main(["--quiet", "doctor", "--data", str(data), "--group", str(table)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "groups 3, of 1 to 1 images" in lines
    table.write_text("image,group\na,anna\nb,ben\nc,anna\n")
    assert main(["--quiet", "doctor", "--data", str(data), "--group", str(table)]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 groups lie in several splits: anna (" in out
    assert "train/images/a.png" in out
    assert "test/images/c.png" in out


def test_a_set_that_nothing_could_be_trained_on_ends_with_status_2_though_each_file_is_sound(data, capsys):
    assert main(["--quiet", "doctor", "--data", str(data), "--group", "()"]) == 2
    assert "images without a group" in capsys.readouterr().out
    (data / "train/images/ab.png").write_bytes((data / "train/images/a.png").read_bytes())
    (data / "train/masks/ab.png").write_bytes((data / "train/masks/a.png").read_bytes())
    for kind in ("images", "masks"):
        (data / "train" / kind / "b.png").unlink()
    assert main(["--quiet", "doctor", "--data", str(data), "--group", "^(.)"]) == 2
    assert "all 2 training images are of the group 'a'" in capsys.readouterr().out
    for kind in ("images", "masks"):
        (data / "train" / kind / "ab.png").unlink()
    assert main(["doctor", "--data", str(data), "--json"]) == 2
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["level"] == "error"
    assert "the data set has 1 training images; at least 2 needed" in fault["message"]
