"""Every case of the collection of faulty data sets is answered as its table says."""

import json
import shutil
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import real_data

from samfit.cli import main
from samfit.data.inspect import Inspection, inspect
from samfit.data.reading import image_size, read_image, read_masks
from samfit.data.sources import Fault, find_samples
from samfit.errors import DataError

# What a message must say beside the names of the case's files.
SAYS = {
    "truncated_jpeg": ["cut off"],
    "truncated_png_mask": ["cut off"],
    "empty_file": ["is empty"],
    "empty_mask_file": ["is empty"],
    "text_named_png": ["not an image", "text"],
    "html_named_jpg": ["not an image", "HTML"],
    "decompression_bomb": ["60000 x 60000"],
    "animated_gif": ["3 pages or frames"],
    "multipage_tiff": ["2 pages", "--page"],
    "image_16bit_dark": ["of 65535"],
    "mask_jpeg_noise": ["JPEG", "inexact"],
    "mask_no_foreground": ["no pixel is foreground"],
    "mask_all_foreground": ["every pixel is foreground"],
    "mask_half_size": ["88 x 66", "176 x 133", "train/images/IMD328.jpg"],
    "mask_transposed": ["132 x 176", "176 x 132", "train/images/IMD347.jpg", "orientation"],
    "mask_missing": ["train/masks/IMD360"],
    "image_missing": ["without image"],
    "same_stem": ["same stem"],
    "mask_suffix": ["train/images/IMD379.jpg", "no mask has its stem", "'_segmentation'"],
    "leak_train_test": ["same picture"],
    "empty_folders": ["train/images: the folder holds no image"],
    "two_class_as_binary": ["0, 128 and 255", "0 as background, 128 as foreground, 255 as foreground"],
    "isic_csv_missing_file": ["row 2 (line 3)", "IMD999.jpg"],
    "refuge_rater_missing": ["Training-400/drishtiGS_004", "cup", "rater 3", "drishtiGS_004_seg_cup_3.png"],
}
NAMED_OTHERWISE = {"refuge_rater_missing"}  # its file is the one that is missing
COUNTS = {"ok": 26, "warning": 7, "error": 17}


def cases() -> dict[str, dict]:
    """Read the table; without the collection one row stands for all and is skipped, visibly, when it runs."""
    try:
        content = json.loads((real_data("dirty") / "cases.json").read_text(encoding="utf-8"))
    except pytest.skip.Exception:
        return {"collection": {"missing": True}}
    return {case["case"]: case for case in content["cases"]}


CASES = cases()


@pytest.fixture
def folder(request, tmp_path) -> Path:
    """Return the case's folder; where it has none, write its awkward files beside the sound pair."""
    case = request.getfixturevalue("case")
    collection = real_data("dirty")
    if not case.get("make_in_test"):
        return collection / case["case"]
    shutil.copytree(collection / "good_pair", tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)
    image = tmp_path / case["files"][0]
    name = unicodedata.normalize("NFC", image.stem) if case["case"] == "unicode_nfd_nfc" else image.stem
    shutil.copyfile(tmp_path / "train/masks/good_IMD002.png", tmp_path / "train/masks" / f"{name}.png")
    if case["case"] == "decompression_bomb":
        image.write_bytes(bomb())
    else:
        shutil.copyfile(tmp_path / "train/images/good_IMD002.jpg", image)
    return tmp_path


def bomb() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def look(case: dict, folder: Path) -> tuple[Inspection | None, tuple[Fault, ...]]:
    try:
        inspection = inspect(find_samples(case["layout"], folder))
    except DataError as error:
        return None, tuple(Fault("error", folder, message) for message in error.faults)
    return inspection, inspection.faults


def names(case: dict) -> list[str]:
    return [] if case["case"] in NAMED_OTHERWISE else case["files"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case_is_answered_as_expected(case, folder):
    inspection, faults = look(case, folder)
    serious = [fault for fault in faults if fault.level != "note"]
    if case["expect"] == "ok":
        assert serious == []
    else:
        assert {fault.level for fault in serious} == {case["expect"]}
        text = "\n".join(fault.message for fault in serious)
        for words in [*names(case), *SAYS[case["case"]]]:
            assert words in text
    if "foreground_pixels" in case.get("read", {}):
        assert inspection is not None
        check_reading(case, folder, inspection)


def check_reading(case: dict, folder: Path, inspection: Inspection) -> None:
    """Compare size and foreground of the case's first file with what its table states."""
    first, read = folder / case["files"][0], case["read"]
    samples = find_samples(case["layout"], folder).samples
    sample = next(s for s in samples if first in (s.image, s.masks["foreground"][0]))
    image = read_image(sample.image)
    (mask,) = read_masks(sample, inspection.reading, ("foreground",))
    width, height = (176, 132) if case.get("make_in_test") else read["image_size"]
    assert image.shape == (height, width, 3)
    assert image_size(sample.image) == mask.shape == (height, width)
    # Made cases use the sound pair, whose mask has the first case's number of pixels.
    expected = CASES["good_pair"]["read"] if case.get("make_in_test") else read
    assert abs(mask.sum() - expected["foreground_pixels"]) <= read.get("tolerance_pixels", 0)
    if "mean_rgb" in read:
        np.testing.assert_allclose(image.mean((0, 1)), read["mean_rgb"], atol=read["mean_rgb_tolerance"])


def test_no_case_is_lost():
    real_data("dirty")
    found = [case["expect"] for case in CASES.values()]
    assert {level: found.count(level) for level in COUNTS} == COUNTS
    assert len(found) == sum(COUNTS.values())
    assert set(SAYS) == {name for name, case in CASES.items() if case["expect"] != "ok"}


def pixels(case: str) -> np.ndarray:
    return read_image(real_data("dirty") / case / CASES[case]["files"][0])


@pytest.mark.parametrize("case", ["image_16bit_grey", "image_16bit_dark", "image_grey"])
def test_grey_images_have_three_equal_channels(case):
    image = pixels(case)
    assert (image == image[..., :1]).all()
    assert (image.max() < 20) == (case == "image_16bit_dark")


def test_16_bit_image_is_scaled_by_its_range():
    path = real_data("dirty") / "image_16bit_grey/train/images/IMD043.png"
    raw = np.asarray(Image.open(path)).astype(float)
    np.testing.assert_allclose(read_image(path)[..., 0], raw * 255 / 65535, atol=0.5)


def test_half_transparent_quarter_is_half_as_bright():
    path = real_data("dirty") / "image_rgba/train/images/IMD092.png"
    stored = np.asarray(Image.open(path)).astype(float)
    np.testing.assert_allclose(read_image(path), stored[..., :3] * stored[..., 3:] / 255, atol=0.5)
    assert stored[:, -1, 3].max() < 255


def test_upright_image_fits_its_mask():
    folder = real_data("dirty") / "exif_orientation_6"
    found = find_samples("folder", folder)
    sample = next(sample for sample in found.samples if sample.id == "IMD112")
    image, reading = read_image(sample.image).mean(2), inspect(found).reading
    mask = read_masks(sample, reading, ("foreground",))[0] > 0
    contrast = {turn: image[turned].mean() - image[~turned].mean() for turn, turned in turns(mask)}
    assert (
        min(contrast, key=contrast.__getitem__) == 0
    )  # a lesion is dark; turned by 180 degrees it fits less


def turns(mask: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(0, mask), (180, mask[::-1, ::-1])]


def test_page_0_of_the_stack_fits_its_mask():
    folder = real_data("dirty") / "multipage_tiff"
    assert inspect(find_samples("folder", folder), page=0).faults == ()


def test_classes_told_are_read_from_one_mask():
    folder = real_data("dirty") / "two_class_as_binary"
    values = {"cytoplasm": 128, "nucleus": 255}
    found = find_samples("folder", folder, values=values)
    (sample,) = (sample for sample in found.samples if sample.id == "006")
    masks = read_masks(sample, inspect(found).reading, list(values))
    read = CASES["two_class_as_binary"]["read"]
    assert masks.sum(axis=(1, 2)).tolist() == [read["pixels_128"], read["pixels_255"]]


def test_sound_pair_beside_a_truncated_image_stays_usable():
    folder = real_data("dirty") / "truncated_jpeg"
    found = find_samples("folder", folder)
    assert read_image(next(s for s in found.samples if s.id == "good_IMD002").image).shape == (132, 176, 3)
    assert inspect(found).sizes == {"176 x 132": 1}


def with_second_pair(folder: Path, target: Path) -> Path:
    """Return a copy of a folder with one more sound pair, as some cases have but one to train on."""
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 255
    for kind, pixels in (("images", mask + 1), ("masks", mask)):
        place = target / "train" / kind
        place.chmod(0o755)
        Image.fromarray(pixels).save(place / "second.png")
    return target


STATUS = {"ok": 0, "warning": 0, "error": 2}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_doctor_says_so_and_draws_what_can_be_read(case, folder, tmp_path_factory, capsys):
    place = tmp_path_factory.mktemp("doctor")
    complete = case["layout"] == "folder" and case["case"] != "empty_folders"
    data, sheet = with_second_pair(folder, place / "data") if complete else folder, place / "sheet.png"
    flags = ("--data", str(data), "--dataset", case["layout"], "--sheet", str(sheet))
    assert main(["--quiet", "doctor", *flags]) == STATUS[case["expect"]]
    said = "".join(capsys.readouterr())
    if case["expect"] != "ok":
        for words in [*names(case), *SAYS[case["case"]]]:
            assert words in said
    assert (" warning" in said) == (case["expect"] == "warning")
    assert sheet.exists() == (case["case"] != "empty_folders")
