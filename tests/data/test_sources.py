"""Layouts written by hand: what is paired, and what each fault of a layout is answered with."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from support import real_data

from samfit.data.sources import SOURCES, find_samples
from samfit.errors import DataError, SettingError

ISIC = "ISBI2016_ISIC_Part1"


def lay(folder: Path, *names: str) -> Path:
    """Make empty files; sources look at names only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def only_fault(found):
    assert len(found.faults) == 1, found.faults
    return found.faults[0]


def ids(found, split="train"):
    return [sample.id for sample in found.samples if sample.split == split]


# folder


def test_folder_finds_every_split(tmp_path):
    names = [
        f"{split}/{kind}"
        for split in ("train", "validation", "test")
        for kind in ("images/1.jpg", "masks/1.png")
    ]
    found = find_samples("folder", lay(tmp_path, *names))
    assert [(sample.id, sample.split) for sample in found.samples] == [
        ("1", "train"),
        ("1", "validation"),
        ("1", "test"),
    ]
    assert found.samples[2].image == tmp_path / "test/images/1.jpg"
    assert found.samples[2].masks == {"foreground": (tmp_path / "test/masks/1.png",)}
    assert found.classes == ("foreground",)
    assert found.faults == ()


def test_folder_without_splits_is_all_for_training(tmp_path):
    found = find_samples(
        "folder", lay(tmp_path, "images/b.JPG", "masks/b.PNG", "images/a.tif", "masks/a.bmp")
    )
    assert ids(found) == ["a", "b"]
    assert found.faults == ()


def test_stems_end_at_the_last_dot(tmp_path):
    names = ["images/a.v2.jpg", "images/a.v2.final.jpg", "masks/a.v2.png", "masks/a.v2.final.png"]
    found = find_samples("folder", lay(tmp_path, *names))
    assert {sample.id: sample.masks["foreground"][0].name for sample in found.samples} == {
        "a.v2": "a.v2.png",
        "a.v2.final": "a.v2.final.png",
    }


def test_names_that_differ_only_in_unicode_form_are_paired(tmp_path):
    apart, together = unicodedata.normalize("NFD", "läsion"), unicodedata.normalize("NFC", "läsion")
    assert apart != together
    found = find_samples("folder", lay(tmp_path, f"images/{apart}.jpg", f"masks/{together}.png"))
    assert ids(found) == [together]
    assert found.faults == ()


def test_hidden_and_foreign_files_are_noted(tmp_path):
    lay(tmp_path, "images/a.jpg", "masks/a.png", "images/._a.jpg", "images/notes.txt", "images/Thumbs.db")
    fault = only_fault(find_samples("folder", tmp_path))
    assert fault.level == "note"
    assert all(name in fault.message for name in ("._a.jpg", "notes.txt", "Thumbs.db"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_an_error_and_not_a_crash_later(tmp_path):
    lay(tmp_path, "images/a.png", "masks/a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/images/l\xe4sion.png")).touch()
    fault = only_fault(find_samples("folder", tmp_path))
    assert fault.level == "error"
    assert "l\\xe4sion.png" in fault.message


def test_image_without_mask_names_the_place_looked_at(tmp_path):
    found = find_samples("folder", lay(tmp_path, "images/a.jpg", "images/b.jpg", "masks/b.png"))
    fault = only_fault(found)
    assert (fault.level, fault.path) == ("error", tmp_path / "images/a.jpg")
    assert str(tmp_path / "masks/a.png") in fault.message
    assert ids(found) == ["b"]


@pytest.mark.parametrize("suffix", ["_segmentation", "-mask"])
def test_masks_with_a_suffix_are_named_once(tmp_path, suffix):
    fault = only_fault(find_samples("folder", lay(tmp_path, "images/a.jpg", f"masks/a{suffix}.png", *SOUND)))
    assert fault.level == "error"
    assert f"masks/a{suffix}.png adds '{suffix}'" in fault.message


SOUND = ("images/z.jpg", "masks/z.png")


def test_mask_of_another_image_is_no_lookalike(tmp_path):
    lay(tmp_path, "images/a.jpg", "images/a_2.jpg", "masks/a_2.png")
    assert "adds" not in only_fault(find_samples("folder", tmp_path)).message


def test_mask_without_image_is_a_warning(tmp_path):
    fault = only_fault(find_samples("folder", lay(tmp_path, "masks/a.png", *SOUND)))
    assert (fault.level, fault.path) == ("warning", tmp_path / "masks/a.png")


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_files_of_one_stem_are_an_error_that_names_both(tmp_path, kind):
    lay(tmp_path, "images/a.jpg", "masks/a.png", f"{kind}/a.tif", *SOUND)
    found = find_samples("folder", tmp_path)
    first = "a.jpg" if kind == "images" else "a.png"
    fault = only_fault(found)
    assert fault.level == "error"
    assert f"{kind}/{first} and " in fault.message
    assert f"{kind}/a.tif" in fault.message
    assert ids(found) == ["z"]


def test_folders_inside_masks_are_classes(tmp_path):
    names = ["images/a.jpg", "masks/cup/a.png", "masks/disc/a.png", "images/b.jpg", "masks/disc/b.png"]
    found = find_samples("folder", lay(tmp_path, *names))
    assert found.classes == ("cup", "disc")
    assert found.samples[0].masks == {name: (tmp_path / f"masks/{name}/a.png",) for name in ("cup", "disc")}
    assert ids(found) == ["a"]
    assert str(tmp_path / "masks/cup/b.png") in only_fault(found).message
    assert ids(find_samples("folder", tmp_path, classes=("disc",))) == ["a", "b"]


def test_classes_of_values_share_the_mask(tmp_path):
    values = {"cell": 128, "nucleus": 255}
    found = find_samples("folder", lay(tmp_path, *SOUND), values=values)
    assert found.classes == ("cell", "nucleus")
    assert found.values == values
    assert found.samples[0].masks == dict.fromkeys(values, (tmp_path / "masks/z.png",))
    chosen = find_samples("folder", tmp_path, values=values, classes=("nucleus",))
    assert (chosen.classes, chosen.values) == (("nucleus",), values)
    assert list(chosen.samples[0].masks) == ["nucleus"]


def test_other_folders_are_noted(tmp_path):
    lay(tmp_path, "train/images/a.jpg", "train/masks/a.png", "val/images/b.jpg")
    fault = only_fault(find_samples("folder", tmp_path))
    assert fault.level == "note"
    assert "passed over val" in fault.message


NOTHING_USABLE = {
    "no folders": ((), "expected train/images and train/masks"),
    "wrong folders": (("imgs/a.jpg",), "found imgs"),
    "empty folders": (("train/images/.keep", "train/masks/.keep"), "train/images: the folder holds no image"),
    "no masks folder": (("images/a.jpg",), "masks: there is no such folder"),
    "no pair": (("images/a.jpg", "masks/b.png"), "a.jpg: has no mask"),
}


@pytest.mark.parametrize("case", NOTHING_USABLE)
def test_nothing_usable_is_raised_with_its_reason(tmp_path, case):
    names, words = NOTHING_USABLE[case]
    with pytest.raises(DataError, match=words):
        find_samples("folder", lay(tmp_path, *names))


# isic2016


def isic(folder: Path, rows: str | None = None, split: str = "Training", ids: str = "ab") -> Path:
    for name in ids:
        lay(folder, f"{ISIC}_{split}_Data/{name}.jpg", f"{ISIC}_{split}_GroundTruth/{name}_Segmentation.png")
    if rows is not None:
        (folder / f"{ISIC}_{split}_GroundTruth.csv").write_bytes(rows.encode())
    return folder


ROW_A = f"0,{ISIC}_Training_Data/a.jpg,{ISIC}_Training_GroundTruth/a_Segmentation.png"
TABLES = {
    "as published": f",img,seg\n{ROW_A}\n",
    "byte-order mark and CRLF": f"\ufeff,img,seg\r\n{ROW_A}\r\n",
    "no header": ROW_A,
    "blank lines": f",img,seg\n\n{ROW_A}\n\n",
    "paths inside the folders": ",img,seg\n0,a.jpg,a_Segmentation.png\n",
    "backslashes": f",img,seg\n{ROW_A}".replace("/", "\\"),
}


@pytest.mark.parametrize("case", TABLES)
def test_isic_reads_its_csv(tmp_path, case):
    found = find_samples("isic2016", isic(tmp_path, TABLES[case]))
    assert ids(found) == ["a"]
    assert found.samples[0].image == tmp_path / f"{ISIC}_Training_Data/a.jpg"
    assert found.samples[0].masks == {
        "lesion": (tmp_path / f"{ISIC}_Training_GroundTruth/a_Segmentation.png",)
    }
    assert found.faults == ()


def test_isic_without_csv_pairs_by_name(tmp_path):
    found = find_samples("isic2016", isic(isic(tmp_path), split="Test", ids="c"))
    assert ids(found) == ["a", "b"]
    assert ids(found, "test") == ["c"]
    assert found.faults == ()


FAULTY_ROWS = {
    "missing image": ("1,x.jpg,a_Segmentation.png", "row 2 (line 3) names x.jpg: not found"),
    "missing mask": ("1,b.jpg,x.png", "row 2 (line 3) names x.png: not found"),
    "too few columns": ("1,b.jpg", "row 2 (line 3): expected three columns"),
    "empty cell": ("1,b.jpg,", "row 2 (line 3): expected three columns"),
    "twice": (ROW_A, "as an earlier row does"),
}


@pytest.mark.parametrize("case", FAULTY_ROWS)
def test_isic_row_that_cannot_be_used_is_named(tmp_path, case):
    row, words = FAULTY_ROWS[case]
    found = find_samples("isic2016", isic(tmp_path, f",img,seg\n{ROW_A}\n{row}\n"))
    fault = only_fault(found)
    assert fault.level == "error"
    assert words in fault.message
    assert f"{ISIC}_Training_GroundTruth.csv" in fault.message
    assert ids(found) == ["a"]


@pytest.mark.parametrize(
    ("rows", "words"), [("", "lists no image"), ("\x00", "no image|not a CSV|three columns")]
)
def test_isic_csv_without_rows_is_an_error(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        find_samples("isic2016", isic(tmp_path, rows))


def test_isic_csv_that_is_not_text_is_an_error(tmp_path):
    (isic(tmp_path) / f"{ISIC}_Training_GroundTruth.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        find_samples("isic2016", tmp_path)


def test_isic_in_a_folder_of_another_layout_shows_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"(?s)expected ISBI2016.*ISIC_0000000_Segmentation\.png"):
        find_samples("isic2016", lay(tmp_path, *SOUND))


# refuge


def refuge(folder: Path, eye: str, raters: int, split: str = "Training-400", classes=("disc", "cup")) -> Path:
    masks = [
        f"{split}/{eye}/{eye}_seg_{name}_{rater}.png" for name in classes for rater in range(1, raters + 1)
    ]
    return lay(folder, f"{split}/{eye}/{eye}.jpg", *masks)


@pytest.mark.parametrize("raters", [1, 4, 11])
def test_refuge_takes_any_number_of_raters_in_their_order(tmp_path, raters):
    refuge(refuge(tmp_path, "g2", raters), "g1", raters)
    refuge(refuge(tmp_path, "v1", raters, "Validation-400"), "t1", raters, "Test-400")
    found = find_samples("refuge", tmp_path)
    assert [(sample.id, sample.split) for sample in found.samples] == [
        ("g1", "train"),
        ("g2", "train"),
        ("v1", "validation"),
        ("t1", "test"),
    ]
    assert found.classes == ("disc", "cup")
    names = [path.name for path in found.samples[0].masks["cup"]]
    assert names == [f"g1_seg_cup_{rater}.png" for rater in range(1, raters + 1)]
    assert found.faults == ()


def test_refuge_missing_rater_is_named_unless_its_class_is_not_asked_for(tmp_path):
    refuge(refuge(tmp_path, "g1", 3), "g2", 3)
    (tmp_path / "Training-400/g2/g2_seg_cup_2.png").unlink()
    found = find_samples("refuge", tmp_path)
    fault = only_fault(found)
    assert (fault.level, fault.path) == ("error", tmp_path / "Training-400/g2")
    assert "cup lacks rater 2; expected g2_seg_cup_2.png" in fault.message
    assert ids(found) == ["g1"]
    assert ids(find_samples("refuge", tmp_path, classes=("disc",))) == ["g1", "g2"]


def test_refuge_faults_of_an_eye_are_named(tmp_path):
    refuge(refuge(tmp_path, "g1", 1), "g2", 1)
    (tmp_path / "Training-400/g2/g2.jpg").unlink()
    lay(tmp_path, "Training-400/g3/g3.jpg", "Training-400/g3/g3.png")
    messages = [fault.message for fault in find_samples("refuge", tmp_path).faults]
    assert any("g2: has no image; expected g2.jpg" in message for message in messages)
    assert any("two images of one name" in message for message in messages)
    assert any("g3: disc lacks rater 1" in message for message in messages)


def test_refuge_without_any_mask_of_a_class_says_so(tmp_path):
    refuge(tmp_path, "g1", 2, classes=("disc",))
    with pytest.raises(DataError, match="has no mask of cup; expected g1_seg_cup_1"):
        find_samples("refuge", tmp_path)
    assert ids(find_samples("refuge", tmp_path, classes=("disc",))) == ["g1"]


# cod10k


def cod10k(folder: Path, *names: str, masks: str = "GT_Object") -> Path:
    return lay(
        folder, *(f"{name}.jpg" for name in names), *(f"{name.replace('Image', masks)}.png" for name in names)
    )


@pytest.mark.parametrize("masks", ["GT_Object", "GT"])
def test_cod10k_finds_both_splits_by_either_name_of_their_masks(tmp_path, masks):
    names = ("Train/Image/COD10K-CAM-1-a", "Train/Image/COD10K-CAM-2-b", "Test/Image/COD10K-CAM-3-c")
    found = find_samples("cod10k", cod10k(tmp_path, *names, masks=masks))
    assert [(sample.id, sample.split) for sample in found.samples] == [
        ("COD10K-CAM-1-a", "train"),
        ("COD10K-CAM-2-b", "train"),
        ("COD10K-CAM-3-c", "test"),
    ]
    assert found.samples[2].masks == {"object": (tmp_path / f"Test/{masks}/COD10K-CAM-3-c.png",)}
    assert (found.classes, found.faults) == (("object",), ())


def test_cod10k_passes_over_images_without_object_and_says_so(tmp_path):
    cod10k(tmp_path, "Test/Image/COD10K-CAM-1-a", "Test/Image/COD10K-NonCAM-2-b")
    lay(tmp_path, "Test/Image/COD10K-NonCAM-3-c.jpg")
    found = find_samples("cod10k", tmp_path)
    assert ids(found, "test") == ["COD10K-CAM-1-a"]
    fault = only_fault(found)
    assert (fault.level, fault.path) == ("note", tmp_path / "Test/Image")
    assert "passed over 2 images named NonCAM" in fault.message


def test_cod10k_image_without_mask_is_an_error(tmp_path):
    lay(cod10k(tmp_path, "Train/Image/a"), "Train/Image/b.jpg")
    assert "Train/GT_Object/b.png" in only_fault(find_samples("cod10k", tmp_path)).message


# camo


def test_camo_takes_the_masks_of_both_splits_from_one_folder(tmp_path):
    names = ("Images/Train/b.jpg", "Images/Train/a.jpg", "Images/Test/c.jpg", *(f"GT/{n}.png" for n in "abc"))
    found = find_samples("camo", lay(tmp_path, *names))
    assert (ids(found), ids(found, "test")) == (["a", "b"], ["c"])
    assert found.samples[2].masks == {"object": (tmp_path / "GT/c.png",)}
    assert found.faults == ()


def test_camo_says_once_which_image_and_which_mask_stand_alone(tmp_path):
    lay(tmp_path, "Images/Train/a.jpg", "Images/Test/b.jpg", "Images/Test/c.jpg", "GT/a.png", "GT/b.png")
    lay(tmp_path, "GT/x.png")
    found = find_samples("camo", tmp_path)
    levels = {fault.path: fault.level for fault in found.faults}
    assert levels == {tmp_path / "Images/Test/c.jpg": "error", tmp_path / "GT/x.png": "warning"}
    assert len(found.faults) == 2


# istd


def test_istd_finds_photographs_and_shadows_and_no_more(tmp_path):
    names = [f"{split}/{split}_{letter}/1-1.png" for split in ("train", "test") for letter in "ABC"]
    found = find_samples("istd", lay(tmp_path, *names))
    assert [(sample.id, sample.split) for sample in found.samples] == [("1-1", "train"), ("1-1", "test")]
    assert found.samples[0].image == tmp_path / "train/train_A/1-1.png"
    assert found.samples[0].masks == {"shadow": (tmp_path / "train/train_B/1-1.png",)}
    assert found.faults == ()


def test_istd_without_its_masks_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(DataError, match="train_B: there is no such folder"):
        find_samples("istd", lay(tmp_path, "train/train_A/1-1.png"))


@pytest.mark.parametrize("dataset", ["cod10k", "camo", "istd"])
def test_classes_may_be_values_of_one_mask_in_every_layout_of_one_mask(tmp_path, dataset):
    lay(tmp_path, "Train/Image/a.jpg", "Train/GT/a.png", "Images/Train/a.jpg", "GT/a.png")
    lay(tmp_path, "train/train_A/a.jpg", "train/train_B/a.png")
    found = find_samples(dataset, tmp_path, values={"one": 128, "two": 255})
    assert found.classes == ("one", "two")
    assert len(set(found.samples[0].masks.values())) == 1


@pytest.mark.parametrize(
    ("dataset", "name", "train", "test"),
    [("cod10k", "camouflage_layout_etis", 35, 17), ("istd", "shadow_mini", 40, 16)],
)
def test_real_images_are_found(dataset, name, train, test):
    found = find_samples(dataset, real_data(name))
    assert (len(ids(found)), len(ids(found, "test"))) == (train, test)
    assert found.faults == ()


# all layouts


@pytest.mark.parametrize("dataset", SOURCES)
def test_missing_folder_and_wrong_layout_are_errors(tmp_path, dataset):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        find_samples(dataset, tmp_path / "nowhere")
    with pytest.raises(DataError, match=str(tmp_path)):
        find_samples(dataset, tmp_path)


def test_wrong_names_get_the_nearest(tmp_path):
    with pytest.raises(SettingError, match=r"--dataset: unknown dataset 'foldr'; did you mean 'folder'"):
        find_samples("foldr", tmp_path)
    with pytest.raises(SettingError, match=r"--classes: unknown class 'disk'; did you mean 'disc'"):
        find_samples("refuge", refuge(tmp_path, "g1", 1), classes=("disk",))


BAD_VALUES = {
    "zero": ({"a": 0}, "a=0: expected 1 to 65535"),
    "too large": ({"a": 70000}, "a=70000"),
    "the same twice": ({"a": 5, "b": 5}, "a and b have the same value 5"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_that_cannot_be_told_apart_are_refused(tmp_path, case):
    values, words = BAD_VALUES[case]
    with pytest.raises(SettingError, match=words):
        find_samples("folder", lay(tmp_path, *SOUND), values=values)


def test_values_are_refused_where_classes_have_files(tmp_path):
    with pytest.raises(SettingError, match="--mask-values"):
        find_samples("refuge", refuge(tmp_path / "r", "g1", 1), values={"a": 1})
    with pytest.raises(SettingError, match="--mask-values"):
        find_samples("folder", lay(tmp_path / "f", "images/a.jpg", "masks/cup/a.png"), values={"a": 1})


def test_table_rows_are_named_and_explained():
    assert set(SOURCES) == {"folder", "isic2016", "refuge", "cod10k", "camo", "istd"}
    for name, row in SOURCES.items():
        assert row.name == name
        assert row.summary
        assert row.tree.startswith("DATA/")


def test_sources_load_no_torch():
    code = "import samfit.data.inspect, samfit.data.splits, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["ph2_isic_layout", "drishti_refuge_layout", "wbc1", "crackforest", "polyp_mini", "dsb2018_nuclei"],
)
def test_real_sets_are_found_whole(name):
    facts = json.loads(real_data("sets.json").read_text())[name]
    found = find_samples(facts["layout"], real_data(name), values=facts.get("classes"))
    counts = {split: sum(sample.split == split for sample in found.samples) for split in ("train", "test")}
    assert sorted(counts.values()) == sorted(facts["counts"].values())
    assert counts["train"] == next(n for key, n in facts["counts"].items() if key.lower().startswith("train"))
    assert found.faults == ()
