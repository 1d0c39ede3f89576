"""`samfit predict` on a small run: files in, masks at the original size out, and ways to get it wrong."""

import json
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from cli_support import content, drawn_data, finished_run, refuse, succeed, train, unchanged
from PIL import Image

from samfit import load_run

CPU = ("--accelerator", "cpu")
BOX = (20.0, 10.0, 70.0, 60.0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two drawn images, 96 x 72."""
    folder = tmp_path_factory.mktemp("photos")
    for name, number in {"a": 12, "b": 13}.items():
        source = drawn_data(tmp_path_factory) / f"ISBI2016_ISIC_Part1_Test_Data/drawn_{number:04d}.jpg"
        shutil.copyfile(source, folder / f"{name}.jpg")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="session")
def box_run(tmp_path_factory):
    """A run that was trained with boxes."""
    run = tmp_path_factory.mktemp("boxes") / "run"
    train(drawn_data(tmp_path_factory), run, "--epochs", "1", "--method", "decoder", "--prompt", "box")
    return run


@pytest.fixture(scope="session")
def loaded(run):
    return load_run(run, accelerator="cpu")


def predict(run: Path, *arguments: object) -> list[str]:
    """Predict and return the files that stdout names."""
    return succeed("--quiet", "predict", run, *CPU, *arguments).out.splitlines()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_masks_of_0_and_255_come_at_the_original_size(run, loaded, photos, tmp_path):
    out = tmp_path / "masks"
    assert predict(run, photos, "--output", out) == [str(out / "a.png"), str(out / "b.png")]
    assert list(content(out)) == ["a.png", "b.png"]
    for name in "ab":
        with Image.open(out / f"{name}.png") as picture:
            assert (picture.mode, picture.size, picture.format) == ("L", (96, 72), "PNG")
        mask = pixels(out / f"{name}.png")
        assert set(np.unique(mask)) == {0, 255}
        array = pixels(photos / f"{name}.jpg")
        for given in (array, photos / f"{name}.jpg", str(photos / f"{name}.jpg")):
            answer = loaded.predict(given)
            assert list(answer) == ["lesion"]
            np.testing.assert_array_equal(answer["lesion"], mask == 255)


def test_files_and_folders_may_be_mixed_and_each_is_segmented_once(run, photos, tmp_path):
    shutil.copyfile(photos / "a.jpg", tmp_path / "c.jpg")
    given = (tmp_path / "c.jpg", photos, photos / "b.jpg")
    assert [Path(file).name for file in predict(run, *given, "--output", tmp_path / "masks")] == [
        "c.png",
        "a.png",
        "b.png",
    ]


def test_what_is_no_image_in_a_folder_is_passed_over_and_said(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("notes")
    (tmp_path / "in/deeper").mkdir()
    answer = succeed("predict", run, tmp_path / "in", "--output", tmp_path / "out", *CPU)
    assert list(content(tmp_path / "out")) == ["a.png", "b.png"]
    assert f"{tmp_path / 'in'}: passed over deeper, notes.txt, no images by name" in answer.err


def test_probabilities_are_16_bit_and_the_mask_is_their_upper_half(run, loaded, photos, tmp_path):
    files = predict(run, photos / "a.jpg", "--output", tmp_path, "--probabilities", "--overlay")
    assert [Path(file).name for file in files] == ["a.png", "a_probability.png", "a_overlay.png"]
    probability = pixels(tmp_path / "a_probability.png")
    assert (probability.dtype, probability.shape) == (np.uint16, (72, 96))
    expected = loaded.probabilities(photos / "a.jpg")["lesion"]
    assert 0 <= expected.min() < 0.5 <= expected.max() <= 1
    np.testing.assert_allclose(probability / 65535, expected, atol=0.51 / 65535)
    mask = pixels(tmp_path / "a.png") == 255
    np.testing.assert_array_equal(mask, expected >= 0.5)
    surely = np.abs(expected - 0.5) > 1 / 65535
    np.testing.assert_array_equal(mask[surely], (probability > 32767)[surely])


def test_an_overlay_is_the_image_with_the_mask_drawn_on_it(run, photos, tmp_path):
    predict(run, photos / "a.jpg", "--output", tmp_path, "--overlay")
    overlay, image = pixels(tmp_path / "a_overlay.png"), pixels(photos / "a.jpg")
    assert overlay.shape == image.shape
    changed = (overlay != image).any(axis=2)
    mask = pixels(tmp_path / "a.png") == 255
    assert changed[mask].mean() > 0.95
    assert changed[~mask].mean() < 0.2  # the rim only


def test_several_classes_have_a_file_each(tmp_path_factory, photos, tmp_path):
    run = tmp_path / "run"
    train(
        drawn_data(tmp_path_factory),
        run,
        "--epochs",
        "1",
        "--method",
        "decoder",
        "--mask-values",
        "skin=1,lesion=255",
    )
    files = predict(run, photos / "a.jpg", "--output", tmp_path / "out", "--probabilities")
    assert [Path(file).name for file in files] == [
        "a_skin.png",
        "a_lesion.png",
        "a_skin_probability.png",
        "a_lesion_probability.png",
    ]


def as_csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_boxes_from_a_csv_file_are_used(box_run, photos, tmp_path):
    prompts = as_csv(tmp_path / "p.csv", "image,x1,y1,x2,y2", "a.jpg,20,10,70,60", "b,0,0,95,71")
    predict(box_run, photos, "--output", tmp_path / "out", "--prompts", prompts, "--probabilities")
    loaded = load_run(box_run, accelerator="cpu")
    for name, box in {"a": BOX, "b": (0, 0, 95, 71)}.items():
        expected = loaded.probabilities(photos / f"{name}.jpg", box=box)["lesion"]
        written = pixels(tmp_path / f"out/{name}_probability.png") / 65535
        np.testing.assert_allclose(written, expected, atol=0.51 / 65535)
    other = loaded.probabilities(photos / "a.jpg", box=(0, 0, 95, 71))["lesion"]
    assert np.abs(other - loaded.probabilities(photos / "a.jpg", box=BOX)["lesion"]).max() > 1e-4


def test_clicks_and_boxes_from_a_json_file_are_used(run, loaded, photos, tmp_path):
    prompts = tmp_path / "p.json"
    points, labels = [[40, 30], [5, 5]], [1, 0]
    prompts.write_text(json.dumps({"a.jpg": {"points": points, "labels": labels}, "b.jpg": {"box": BOX}}))
    predict(run, photos, "--output", tmp_path / "out", "--prompts", prompts)
    expected = {
        "a": loaded.predict(photos / "a.jpg", points=points, labels=labels),
        "b": loaded.predict(photos / "b.jpg", box=BOX),
    }
    for name, answer in expected.items():
        np.testing.assert_array_equal(pixels(tmp_path / f"out/{name}.png") == 255, answer["lesion"])


def test_a_composed_name_in_the_prompts_file_means_the_decomposed_one_of_the_image(run, photos, tmp_path):
    image = tmp_path / f"{unicodedata.normalize('NFD', 'läsion')}.jpg"
    shutil.copyfile(photos / "a.jpg", image)
    prompts = as_csv(tmp_path / "p.csv", "image,x,y", f"{unicodedata.normalize('NFC', 'läsion')}.jpg,40,30")
    [written] = predict(run, image, "--output", tmp_path / "out", "--prompts", prompts)
    assert Path(written).stem == image.stem


def test_a_run_that_was_trained_with_boxes_asks_for_them(box_run, photos, tmp_path):
    message = refuse("predict", box_run, photos, "--output", tmp_path / "out")
    assert f"{box_run} was trained with --prompt box" in message
    assert "--prompts FILE" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (
            "image,x,y",
            ["a.jpg,97,10", "b.jpg,3,72.5"],
            [
                "a.jpg: the prompt (97, 10) lies outside the image of 96 x 72",
                "b.jpg: the prompt (3, 72.5) lies outside the image of 96 x 72",
            ],
        ),
        (
            "image,x,y",
            ["a.jpg,1,1", "c.jpg,1,1", "d,1,1"],
            ["p.csv: no prompt for", "b.jpg", "'c.jpg' is none of the images", "'d' is none of the images"],
        ),
        (
            "image,x1,y1,x2,y2",
            ["a.jpg,70,10,20,60", "b.jpg,0,0,9,x"],
            ["line 2: x2 = 20 is smaller than x1 = 70", 'line 3: y2 is not a number: "x"'],
        ),
        ("image,x,z", ["a.jpg,1,1"], ["line 1: column 'z' has no place here", "image,x,y,label"]),
    ],
)
def test_faults_of_a_prompts_file_are_listed_before_anything_is_written(
    run, photos, tmp_path, header, rows, said
):
    prompts = as_csv(tmp_path / "p.csv", header, *rows)
    message = refuse("predict", run, photos, "--output", tmp_path / "out", "--prompts", prompts)
    for words in said:
        assert words in message
    assert not (tmp_path / "out").exists()


def test_a_prompts_file_that_is_not_there_is_named(run, photos, tmp_path):
    message = refuse("predict", run, photos, "--output", tmp_path / "out", "--prompts", tmp_path / "p.csv")
    assert f"--prompts {tmp_path / 'p.csv'}: there is no such file" in message


@pytest.mark.parametrize(
    ("one", "other", "flags", "result"),
    [
        ("in/a.jpg", "in/a.png", (), "a.png"),
        ("in/a.jpg", "also/a.jpg", (), "a.png"),
        ("in/a.jpg", "in/a_overlay.jpg", ("--overlay",), "a_overlay.png"),
    ],
)
def test_two_images_that_would_write_the_same_file_are_both_named(
    run, photos, tmp_path, one, other, flags, result
):
    for name in (one, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(photos / "a.jpg").save(tmp_path / name)
    images, out = (tmp_path / one, tmp_path / other), tmp_path / "out"
    message = refuse("predict", run, *images, "--output", out, "--overwrite", *flags)
    assert f"{images[0]} and {images[1]} would write {out / result}" in message
    assert not out.exists()


def test_files_that_are_there_are_kept_unless_told_otherwise(run, photos, tmp_path):
    (tmp_path / "b.png").write_bytes(b"mine")
    with unchanged(tmp_path):
        message = refuse("predict", run, photos, "--output", tmp_path)
    assert f"{tmp_path / 'b.png'}: there already" in message
    assert "--overwrite" in message
    predict(run, photos, "--output", tmp_path, "--overwrite")
    assert pixels(tmp_path / "b.png").shape == (72, 96)


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_an_image_is_never_replaced_by_its_own_mask(run, photos, tmp_path, flags):
    for name in "ab":
        Image.open(photos / f"{name}.jpg").save(tmp_path / f"{name}.png")
    with unchanged(tmp_path):
        message = refuse("predict", run, tmp_path, "--output", tmp_path, *flags)
    assert f"{tmp_path / 'a.png'} and 1 more: an image to segment; choose another --output" in message
    assert "--overwrite" not in message


def test_masks_may_lie_beside_images_of_another_kind(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    before = content(tmp_path / "in")
    predict(run, tmp_path / "in", "--output", tmp_path / "in")
    after = content(tmp_path / "in")
    assert list(after) == ["a.jpg", "a.png", "b.jpg", "b.png"]
    assert before.items() <= after.items()


def test_an_unreadable_image_does_not_keep_the_others_from_being_written(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    whole = (photos / "a.jpg").read_bytes()
    (tmp_path / "in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/text.png").write_text("no picture")
    message = refuse("predict", run, tmp_path / "in", "--output", tmp_path / "out")
    for words in (
        "3 of 5 images cannot be read; the 2 files of the others were written:",
        f"{tmp_path / 'in/cut.jpg'}: the file is cut off",
        f"{tmp_path / 'in/empty.png'}: the file is empty",
        f"{tmp_path / 'in/text.png'}: not an image but a text file",
    ):
        assert words in message
    assert list(content(tmp_path / "out")) == ["a.png", "b.png"]


def test_a_photo_is_answered_upright(run, loaded, photos, tmp_path):
    upright = Image.open(photos / "a.jpg")
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise before it is shown
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    predict(run, tmp_path / "turned.png", "--output", tmp_path / "out", "--overlay")
    expected = loaded.predict(np.asarray(upright))["lesion"]
    np.testing.assert_array_equal(pixels(tmp_path / "out/turned.png") == 255, expected)
    assert pixels(tmp_path / "out/turned_overlay.png").shape == (72, 96, 3)
    prompts = as_csv(tmp_path / "p.csv", "image,x,y", "turned.png,95,70")  # outside the image as it is stored
    predict(run, tmp_path / "turned.png", "--output", tmp_path / "prompted", "--prompts", prompts)


def test_16_bits_are_scaled_by_their_range(run, loaded, photos, tmp_path):
    grey = np.asarray(Image.open(photos / "a.jpg").convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    predict(run, tmp_path / "deep.png", "--output", tmp_path / "out")
    expected = loaded.predict(np.repeat(grey[..., None], 3, axis=2))["lesion"]
    np.testing.assert_array_equal(pixels(tmp_path / "out/deep.png") == 255, expected)


def test_a_page_is_chosen_or_asked_for(run, loaded, photos, tmp_path):
    first, second = (Image.open(photos / f"{name}.jpg") for name in "ab")
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    message = refuse("predict", run, tmp_path / "pages.tif", "--output", tmp_path / "out")
    assert "has 2 pages or frames; choose one with --page" in message
    predict(run, tmp_path / "pages.tif", "--output", tmp_path / "out", "--page", 1)
    expected = loaded.predict(np.asarray(second))["lesion"]
    np.testing.assert_array_equal(pixels(tmp_path / "out/pages.png") == 255, expected)


def test_names_are_kept_letter_by_letter(run, photos, tmp_path):
    names = ["läsion_β_图像_№1 (kopie)", unicodedata.normalize("NFD", "läsion"), "a.v2.final", "a.v2"]
    for name in names:
        shutil.copyfile(photos / "a.jpg", tmp_path / f"{name}.jpg")
    predict(run, tmp_path, "--output", tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == sorted(f"{name}.png" for name in names)


def test_a_name_that_would_be_too_long_is_named_before_anything_is_written(run, photos, tmp_path):
    image = tmp_path / f"{'ä' * 124}.jpg"  # 248 bytes and the ending
    shutil.copyfile(photos / "a.jpg", image)
    message = refuse("predict", run, image, "--output", tmp_path / "out", "--overlay")
    assert re.search(r"_overlay\.png: a name of 260 bytes, and 255 are allowed; rename .*\.jpg", message)
    assert not (tmp_path / "out").exists()
    assert len(predict(run, image, "--output", tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none.jpg", "none.jpg: there is no such file or folder"),
        ("empty", "empty: the folder holds no image"),
    ],
)
def test_images_that_are_not_there_are_named(run, tmp_path, given, said):
    (tmp_path / "empty").mkdir()
    assert said in refuse("predict", run, tmp_path / given, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_output_folder_is_named(run, photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    message = refuse("predict", run, photos, "--output", tmp_path / "out")
    assert f"--output {tmp_path / 'out'}: {tmp_path / 'out'} is a file" in message


def test_a_folder_that_is_no_run_is_named(photos, tmp_path):
    message = refuse("predict", photos, photos, "--output", tmp_path / "out")
    assert f"{photos} is not a run of samfit: it has no config.yaml" in message
    message = refuse("predict", tmp_path / "none", photos, "--output", tmp_path / "out")
    assert "there is no such folder" in message


def test_every_file_is_named_on_stdout_as_it_lies_there(run, photos, tmp_path):
    files = predict(run, photos, "--output", tmp_path / "out", "--probabilities", "--overlay")
    assert sorted(Path(file).name for file in files) == list(content(tmp_path / "out"))
