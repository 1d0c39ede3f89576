"""Small drawn data sets, each with one thing to report, and the real ones, with nothing."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support import real_data

from samfit.data.drawn import draw_lesion
from samfit.data.inspect import inspect, require_sound
from samfit.data.sources import find_samples
from samfit.errors import DataError

HEIGHT, WIDTH = 40, 60


def shape() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 15:45] = 1
    return mask


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


class DataSet:
    """A folder layout that a test fills; the first pair is sound, with a 0/255 mask."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.add("sound", shape() * 255)

    def add(
        self, name: str, mask: np.ndarray | Image.Image, image=None, split="train", mask_as="png", **options
    ):
        for kind in ("images", "masks"):
            (self.folder / split / kind).mkdir(parents=True, exist_ok=True)
        picture_of = picture(sum(name.encode())) if image is None else image
        picture_of.save(self.folder / split / "images" / f"{name}.png")
        picture_of = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture_of.save(self.folder / split / "masks" / f"{name}.{mask_as}", **options)
        return self

    def inspect(self, **options):
        return inspect(find_samples("folder", self.folder, **options))

    def mask(self, name: str) -> str:
        return str(self.folder / "train" / "masks" / name)


@pytest.fixture
def data(tmp_path):
    return DataSet(tmp_path)


def only_fault(inspection, level: str) -> str:
    assert [fault.level for fault in inspection.faults] == [level], inspection.faults
    return inspection.faults[0].message


def test_sound_set_gives_no_fault_and_its_facts(data):
    inspection = data.add("half", np.tile(np.uint8([255, 0]), (HEIGHT, WIDTH // 2)), split="test").inspect()
    assert inspection.faults == ()
    assert inspection.images == {"train": 1, "test": 1}
    assert inspection.sizes == {"60 x 40": 2}
    assert inspection.empty_masks == {"foreground": 0}
    assert inspection.foreground_share == {"foreground": pytest.approx((0.25 + 0.5) / 2)}
    require_sound(inspection)


def test_unreadable_files_are_all_collected_and_raised_together(data):
    for name in ("a", "b"):
        data.add(name, shape() * 255)
    (data.folder / "train/images/a.png").write_bytes(b"")
    Path(data.mask("b.png")).write_text("no mask")
    inspection = data.inspect()
    assert [fault.level for fault in inspection.faults] == ["error", "error"]
    with pytest.raises(DataError) as caught:
        require_sound(inspection)
    assert len(caught.value.faults) == 2
    assert "images/a.png: the file is empty" in caught.value.faults[0]
    assert "masks/b.png: not an image" in caught.value.faults[1]


def test_mask_of_another_size_names_both_files_and_sizes(data):
    message = only_fault(data.add("a", np.full((20, 30), 255, np.uint8)).inspect(), "error")
    for words in ("masks/a.png is 30 x 20", "images/a.png is 60 x 40"):
        assert words in message
    assert "orientation" not in message


def test_transposed_mask_gets_a_hint_at_orientation(data):
    assert "EXIF orientation" in only_fault(data.add("a", shape().T * 255).inspect(), "error")


def test_mask_is_compared_with_the_upright_image(data):
    data.add("a", shape() * 255, image=picture(1, WIDTH, HEIGHT))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, WIDTH, HEIGHT).save(data.folder / "train/images/a.png", exif=exif)
    assert data.inspect().faults == ()


def test_empty_masks_are_warned_of_and_counted(data):
    inspection = data.add("a", shape() * 0).inspect()
    message = only_fault(inspection, "warning")
    assert data.mask("a.png") in message
    assert inspection.empty_masks == {"foreground": 1}


def test_mask_that_is_all_foreground_is_warned_of(data):
    assert "every pixel is foreground" in only_fault(data.add("a", shape() * 0 + 255).inspect(), "warning")


def test_jpeg_masks_are_warned_of_once_and_their_noise_is_no_third_value(data):
    for name in ("a", "b"):
        data.add(name, shape() * 255, mask_as="jpg", quality=30)
    message = only_fault(data.inspect(), "warning")
    assert "masks/a.jpg and 1 more: a JPEG mask is inexact" in message


def test_areas_of_jpeg_noise_are_no_values_of_their_own(data):
    near = np.where(shape() > 0, 250, 3).astype(np.uint8)
    inspection = data.add("a", near, mask_as="jpg", quality=90).inspect()
    assert "inexact" in only_fault(inspection, "warning")
    assert inspection.read_as == {"0": "background", "255": "foreground"}


def test_grey_borders_are_no_third_value(data):
    smooth = (
        Image.fromarray(shape() * 255)
        .resize((WIDTH // 3, HEIGHT // 3))
        .resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    )
    inspection = data.add("a", smooth).inspect()
    assert len(np.unique(np.asarray(smooth))) > 10
    assert inspection.faults == ()
    assert inspection.reading.foreground == "above-half"


def two_values() -> np.ndarray:
    mask = shape() * 128
    mask[15:25, 20:40] = 255
    return mask


def test_third_value_is_warned_of_once_with_how_it_was_read(data):
    inspection = data.add("a", two_values()).add("b", two_values()).inspect()
    message = only_fault(inspection, "warning")
    for words in (
        "masks/a.png and 1 more",
        "0, 128 and 255",
        "128 as foreground",
        "--mask-values class1=128,class2=255",
    ):
        assert words in message
    assert inspection.read_as == {"0": "background", "128": "foreground", "255": "foreground"}


def test_third_value_that_is_named_is_no_fault(data):
    inspection = data.add("a", two_values()).inspect(values={"cell": 128, "nucleus": 255})
    assert [fault.message for fault in inspection.faults if "sound.png" not in fault.message] == []
    assert inspection.read_as == {"0": "background", "128": "cell", "255": "nucleus"}
    assert inspection.foreground_share["cell"] == pytest.approx((600 - 200) / 2400 / 2)


def test_value_that_mask_values_forgot_is_warned_of(data):
    inspection = data.add("a", two_values()).inspect(values={"nucleus": 255})
    assert "--mask-values does not name 128" in only_fault(inspection, "warning")


FAINT = {
    "0/1 beside grey borders": (shape(), "values 0 and 1"),
    "0/1 of 16 bits beside grey borders": (shape().astype(np.uint16), "values 0 and 1"),
    "a thin line of 1": (np.eye(HEIGHT, WIDTH, dtype=np.uint8), "values 0 and 1"),
    "0/100": (shape() * 100, "values 0 and 100"),
    "labels 0, 1, 2": (two_values() // 127, "values 0, 1 and 2"),
}


@pytest.mark.parametrize("case", FAINT)
def test_mask_that_would_silently_be_empty_is_an_error(data, case):
    mask, words = FAINT[case]
    border = shape() * 255
    border[10, 15:45] = 77
    message = only_fault(data.add("border", border).add("a", mask).inspect(), "error")
    for expected in (data.mask("a.png"), words, "read as empty", "--mask-values class1="):
        assert expected in message


def test_palette_of_dark_colours_above_index_1_is_an_error(data):
    image = Image.frombytes("P", (WIDTH, HEIGHT), (shape() * 2).tobytes())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 0, 90])
    assert "palette indexes 0 and 2" in only_fault(data.add("a", image).inspect(), "error")


def test_one_odd_value_in_the_whole_set_is_read_at_half_without_a_word(tmp_path):
    data = DataSet(tmp_path)
    Image.fromarray(shape() * 200).save(data.mask("sound.png"))
    inspection = data.inspect()
    assert inspection.faults == ()
    assert inspection.foreground_share["foreground"] == pytest.approx(0.25)


@pytest.mark.parametrize(("largest", "level"), [(4095, "warning"), (16383, "warning"), (60000, None)])
def test_16_bit_image_in_a_small_part_of_its_range_is_warned_of(data, largest, level):
    ramp = np.linspace(0, largest, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    inspection = data.add("a", shape() * 255, image=Image.fromarray(ramp)).inspect()
    if level is None:
        assert inspection.faults == ()
    else:
        message = only_fault(inspection, level)
        assert f"images/a.png: the largest value is {largest} of 65535" in message


@pytest.mark.parametrize(
    ("split", "level"), [("test", "warning"), ("validation", "warning"), ("train", "note")]
)
def test_same_picture_twice_is_named(data, split, level):
    data.add("a", shape() * 255).add("b", shape() * 255, image=picture(sum(b"a")), split=split)
    message = only_fault(data.inspect(), level)
    assert "train/images/a.png and" in message
    assert f"{split}/images/b.png are the same picture" in message


@pytest.mark.parametrize(("split", "level"), [("test", "warning"), ("train", "note")])
def test_a_rescaled_copy_is_named_with_what_it_was_copied_from(data, split, level):
    photograph = Image.fromarray(draw_lesion(np.random.default_rng(1), 160, 120)[0])
    data.add("a", np.full((120, 160), 255, np.uint8), image=photograph)
    data.add("b", np.full((45, 60), 255, np.uint8), image=photograph.resize((60, 45)), split=split)
    inspection = data.inspect()
    (fault,) = [fault for fault in inspection.faults if "every pixel" not in fault.message]
    assert fault.level == level
    assert "train/images/a.png and " in fault.message
    assert f"{split}/images/b.png look like copies of one picture (" in fault.message
    (pair,) = inspection.to_json()["duplicates"]
    assert pair["first"].endswith("a.png")
    assert pair["second"].endswith("b.png")
    assert pair["splits"] == ["train", split]
    assert (pair["equal_pixels"], pair["differing_bits"] > 0) == (False, True)


def test_groups_are_counted_and_those_in_several_splits_are_named_once(data):
    for number in range(7):
        data.add(f"p{number}_a", shape() * 255).add(f"p{number}_z", shape() * 255, split="test")
    data.add("p7_a", shape() * 255).add("p7_z", shape() * 255)
    (data.folder / "train/images/sound.png").unlink()
    (data.folder / "train/masks/sound.png").unlink()
    inspection = data.inspect(group="^(p.)_")
    message = only_fault(inspection, "warning")
    assert message.startswith("7 of 8 groups lie in several splits: p0 (")
    assert all(f"{split}/images/p4_{x}.png" in message for split, x in (("train", "a"), ("test", "z")))
    assert "and 2 more; scores would be too good" in message
    assert "p5" not in message
    assert inspection.groups["p0"] == {"train": 1, "test": 1}
    assert inspection.to_json()["groups"]["p7"] == {"train": 2}
    assert data.inspect().groups == {}


def test_an_image_without_a_group_is_an_error(data):
    message = only_fault(data.add("p1", shape() * 255).inspect(group="(p.)"), "error")
    assert "images without a group: " in message
    assert "train/images/sound.png" in message


FILES = {
    "RGB, 8 bit": picture(1),
    "RGB with alpha, 8 bit": picture(1).convert("RGBA"),
    "grey, 8 bit": picture(1).convert("L"),
    "grey with alpha, 8 bit": picture(1).convert("LA"),
    "grey, 1 bit": picture(1).convert("1"),
    "grey, 16 bit": Image.fromarray(np.arange(0, 2400 * 27, 27, dtype=np.uint16).reshape(HEIGHT, WIDTH)),
    "palette, 8 bit": picture(1).quantize(16),
}


@pytest.mark.parametrize("kind", FILES)
def test_colours_and_bits_of_images_are_those_of_the_files(data, kind):
    inspection = data.add("a", shape() * 255, image=FILES[kind]).add("b", shape() * 255).inspect()
    assert inspection.kinds == ({"RGB, 8 bit": 3} if kind == "RGB, 8 bit" else {"RGB, 8 bit": 2, kind: 1})
    assert inspection.mask_kinds == {"grey, 8 bit": 3}


def test_colour_files_of_16_bits_and_masks_of_one_bit_are_told(data):
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    data.add("a", Image.fromarray(shape() * 255).convert("1"))
    cv2.imwrite(str(data.folder / "train/images/a.png"), deep)
    inspection = data.inspect()
    assert inspection.kinds == {"RGB, 8 bit": 1, "RGB, 16 bit": 1}
    assert inspection.mask_kinds == {"grey, 8 bit": 1, "grey, 1 bit": 1}


def test_raters_count_as_one_mask(tmp_path):
    eye = tmp_path / "Training-400/g1"
    eye.mkdir(parents=True)
    picture(0).save(eye / "g1.jpg")
    for name, masks in {"disc": (shape(), shape()), "cup": (shape(), shape() * 0)}.items():
        for rater, mask in enumerate(masks, start=1):
            Image.fromarray(mask * 255).save(eye / f"g1_seg_{name}_{rater}.png")
    inspection = inspect(find_samples("refuge", tmp_path))
    assert inspection.faults == ()
    assert inspection.foreground_share == {"disc": pytest.approx(0.25), "cup": pytest.approx(0.125)}


def test_faults_of_pairing_come_first_and_progress_sees_every_sample(data):
    picture(3).save(data.folder / "train/images/alone.png")
    seen = []

    def progress(iterable, what, total):
        seen.append((what, total))
        return iterable

    inspection = inspect(find_samples("folder", data.folder), progress=progress)
    assert "has no mask" in inspection.faults[0].message
    assert inspection.errors == inspection.faults
    assert seen == [("reading", 1), ("comparing", 0)]


def test_page_is_chosen_for_images_only(data):
    pages = [picture(seed) for seed in (1, 2)]
    Image.fromarray(shape() * 255).save(data.mask("a.png"))
    pages[0].save(data.folder / "train/images/a.tif", save_all=True, append_images=pages[1:])
    found = find_samples("folder", data.folder)
    assert "has 2 pages" in only_fault(inspect(found), "error")
    assert inspect(found, page=1).faults == ()


def test_json_holds_plain_types(data):
    content = data.add("a", shape() * 0).inspect().to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["faults"][0]["level"] == "warning"
    assert content["reading"]["rule"] == data.inspect().reading.describe()


REAL = ["ph2_isic_layout", "drishti_refuge_layout", "wbc1", "crackforest"]


@pytest.mark.parametrize("name", REAL)
def test_real_sets_are_sound_and_measured_right(name):
    facts = json.loads(real_data("sets.json").read_text())[name]
    inspection = inspect(find_samples(facts["layout"], real_data(name), values=facts.get("classes")))
    assert {fault.level for fault in inspection.faults} <= {"note"}
    found = {(pair.first.id, pair.second.id) for pair in inspection.duplicates}
    assert found == ({("112", "139"), ("166", "171")} if name == "wbc1" else set())
    assert sorted(inspection.images.values()) == sorted(facts["counts"].values())
    shares = facts["foreground_share"]
    expected = {
        "ph2_isic_layout": {"lesion": shares.get("fg")},
        "crackforest": {"foreground": shares.get("fg")},
        "wbc1": {"cytoplasm": shares.get("grey128"), "nucleus": shares.get("white255")},
        "drishti_refuge_layout": {
            organ: np.mean([shares.get(f"{organ}_{rater}", 0) for rater in range(1, 5)])
            for organ in ("disc", "cup")
        },
    }[name]
    assert inspection.foreground_share == pytest.approx(expected, abs=1e-4)


def test_both_duplicates_in_wbc1_are_found():
    facts = json.loads(real_data("sets.json").read_text())["wbc1"]
    inspection = inspect(find_samples("folder", real_data("wbc1"), values=facts["classes"]))
    assert [fault.level for fault in inspection.faults] == ["note", "note"]
    equal, alike = [fault.message for fault in inspection.faults]
    assert all(f"train/images/{name}.jpg" in equal for name in ("112", "139"))
    assert "same picture, twice in train" in equal
    assert all(f"test/images/{name}.jpg" in alike for name in ("166", "171"))
    assert "look like copies of one picture" in alike
