"""Copies of a photograph are known again; what is merely alike is not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support import real_data

from samfit.data.drawn import draw_lesion
from samfit.data.duplicates import ALIKE, BITS, Seen, find_duplicates, picture_hash
from samfit.data.reading import read_image
from samfit.types import Sample

PHOTOGRAPHS = {
    "ph2_isic_layout": "ISBI2016_ISIC_Part1_Test_Data/*.jpg",
    "drishti_refuge_layout": "Test-400/*/*.jpg",
    "crackforest": "test/images/*",
    "dsb2018_nuclei": "test/images/*",
}


def drawn(seed: int) -> np.ndarray:
    return draw_lesion(np.random.default_rng(seed), 160, 120)[0]


def saved(image: Image.Image, quality: int) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def scaled(image: np.ndarray, factor: float) -> Image.Image:
    picture = Image.fromarray(image)
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


COPIES = {
    "saved again": lambda image: saved(Image.fromarray(image), 50),
    "half the size": lambda image: saved(scaled(image, 0.5), 80),
    "twice the size": lambda image: saved(scaled(image, 2), 60),
    "another aspect": lambda image: saved(Image.fromarray(image).resize((128, 128)), 80),
    "grey": lambda image: saved(ImageOps.grayscale(Image.fromarray(image)), 80),
    "brighter": lambda image: (image.astype(np.float32) * 0.8 + 12).astype(np.uint8),
}


def differing(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many bits of the hashes of two images differ."""
    hashes = [picture_hash(image) for image in (one, other)]
    assert hashes[0] is not None
    assert hashes[1] is not None
    return int(np.bitwise_count(hashes[0] ^ hashes[1]).sum())


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_a_drawn_picture_is_known(copy):
    for seed in range(4):
        assert differing(drawn(seed), COPIES[copy](drawn(seed))) <= ALIKE


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_rescaled_and_saved_as_jpeg_is_known_among_others_of_its_kind(name):
    images = [read_image(path) for path in sorted(real_data(name).glob(PHOTOGRAPHS[name]))[:6]]
    assert len(images) == 6
    for number, image in enumerate(images):
        copy = saved(scaled(image, 0.6), 75)
        known = [differing(copy, other) <= ALIKE for other in images]
        assert known == [other == number for other in range(6)]


def test_pictures_that_have_nothing_in_common_differ_in_about_half_of_the_bits():
    bits = [differing(drawn(0), drawn(seed)) for seed in range(1, 9)]
    assert min(bits) > 2 * ALIKE
    noise = [np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8) for seed in (1, 2)]
    assert abs(differing(*noise) - BITS / 2) < BITS / 5


@pytest.mark.parametrize("change", [np.fliplr, np.rot90, lambda image: image[30:]])
def test_a_mirrored_turned_or_cropped_copy_is_not_known(change):
    assert differing(drawn(1), np.ascontiguousarray(change(drawn(1)))) > ALIKE


def seen(name: str, image: np.ndarray, split: str = "train") -> Seen:
    return Seen(Sample(name, split, Path(split, name), {}), image.tobytes(), picture_hash(image))


def found(*images: Seen) -> list[tuple[str, str, bool]]:
    return [(pair.first.id, pair.second.id, pair.bits is None) for pair in find_duplicates(images)]


def test_each_image_is_named_once_beside_the_one_that_it_repeats():
    copy = COPIES["half the size"](drawn(1))
    images = [seen("a", drawn(1)), seen("b", drawn(2)), seen("c", copy), seen("d", drawn(1)), seen("e", copy)]
    assert found(*images) == [("a", "c", False), ("a", "d", True), ("c", "e", True)]


def test_a_copy_in_another_split_is_named_before_one_of_equal_pixels_in_its_own():
    copy = COPIES["half the size"](drawn(1))
    images = [seen("a", drawn(1)), seen("b", copy, "test"), seen("c", copy, "test")]
    assert found(*images) == [("a", "b", False), ("a", "c", False)]
    pairs = find_duplicates([*images[:1], seen("d", drawn(1)), *images[1:]])
    assert [pair.between_splits for pair in pairs] == [False, True, True]


def test_of_several_copies_the_nearest_is_named():
    images = [seen("far", COPIES["half the size"](drawn(3))), seen("near", COPIES["grey"](drawn(3)))]
    bits = [differing(drawn(3), COPIES[copy](drawn(3))) for copy in ("half the size", "grey")]
    nearest = ("far", "near")[int(np.argmin(bits))]
    assert bits[0] != bits[1]
    assert found(*images, seen("a", drawn(3)))[-1] == (nearest, "a", False)


def test_blank_images_are_alike_only_if_their_pixels_are_equal():
    black, grey = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 90, np.uint8)
    assert picture_hash(black) is None
    assert found(seen("a", black), seen("b", grey), seen("c", drawn(1)), seen("d", black)) == [
        ("a", "d", True)
    ]


def test_nothing_and_one_image_have_no_duplicates():
    assert found() == found(seen("a", drawn(1))) == []


def test_the_comparison_shows_how_far_it_is():
    said = []

    def progress(items, what, count):
        said.append((what, count))
        return items

    find_duplicates([seen(name, drawn(1)) for name in "abc"], progress)
    assert said == [("comparing", 2)]
