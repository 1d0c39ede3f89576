"""Files drawn here, read back: every kind of image and mask, and every way in which a file can be broken."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from samfit.data.reading import (
    MaskReading,
    decide_reading,
    image_size,
    mask_levels,
    read_image,
    read_masks,
)
from samfit.errors import DataError
from samfit.types import Sample

HEIGHT, WIDTH = 12, 20
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
SHAPE = np.zeros((HEIGHT, WIDTH), dtype=bool)
SHAPE[2:8, 3:15] = True


def read_mask(path: Path, reading: MaskReading, name: str) -> np.ndarray:
    """Read one class of a mask (H, W)."""
    return read_masks(Sample("a", "train", path, {name: (path,)}), reading, (name,))[0]


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def palette_image(indexes: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.frombytes("P", (indexes.shape[1], indexes.shape[0]), indexes.astype(np.uint8).tobytes())
    image.putpalette(colours)
    return image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(pixels: np.ndarray, orientation: int) -> bytes:
    """Write (H, W, 3) uint16 as TIFF by hand, since no library here writes both 16 bits and orientation."""
    height, width, _ = pixels.shape
    data = pixels.astype("<u2").tobytes()
    bits_at, data_at = 8 + 2 + 10 * 12 + 4, 8 + 2 + 10 * 12 + 4 + 6
    tags = [(256, width), (257, height), (258, bits_at), (259, 1), (262, 2), (273, data_at)]
    tags += [(274, orientation), (277, 3), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags if tag != 258)
    bits = struct.pack("<HHII", 258, 3, 3, bits_at)
    entries = entries[:24] + bits + entries[24:]
    return (
        struct.pack("<2sHIH", b"II", 42, 8, 10) + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + data
    )


def bomb(path: Path, side: int = 60000) -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + end)
    return path


# Images


def test_colour_image_is_read_as_it_is(tmp_path):
    np.testing.assert_array_equal(read_image(save(Image.fromarray(COLOUR), tmp_path / "a.png")), COLOUR)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_of_16_bits_is_scaled_by_the_range_of_the_type(tmp_path, name):
    image = read_image(save(Image.fromarray(GREY16), tmp_path / name))
    expected = np.round(GREY16 / 65535 * 255)
    assert image.shape == (HEIGHT, WIDTH, 3)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_16_bits_is_scaled_and_alpha_laid_over_black(tmp_path, name, channels):
    deep = RNG.integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    path = tmp_path / name
    cv2.imwrite(str(path), deep[..., [2, 1, 0, 3][:channels]])
    expected = deep[..., :3] / 65535 * (deep[..., 3:] / 65535 if channels == 4 else 1)
    np.testing.assert_allclose(read_image(path), expected * 255, atol=0.51)


def test_largest_16_bit_colour_is_kept_where_8_bits_would_lose_it(tmp_path):
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.repeat(SHAPE[..., None], 3, 2).astype(np.uint16))
    assert mask_levels(path).counts == {0: HEIGHT * WIDTH - 72, 1: 72}


def test_16_bit_grey_map_of_the_ppm_family_is_scaled(tmp_path):
    path = tmp_path / "a.pgm"
    cv2.imwrite(str(path), GREY16)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.round(GREY16 / 257))


def test_alpha_is_laid_over_black(tmp_path):
    alpha = np.full((HEIGHT, WIDTH, 1), 128, dtype=np.uint8)
    path = save(Image.fromarray(np.concatenate([COLOUR, alpha], 2)), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), np.round(COLOUR * (128 / 255)))


def test_grey_and_alpha_is_laid_over_black(tmp_path):
    pixels = np.stack([COLOUR[..., 0], np.where(SHAPE, 255, 0).astype(np.uint8)], 2)
    image = read_image(save(Image.fromarray(pixels, "LA"), tmp_path / "a.png"))
    np.testing.assert_array_equal(image[..., 1], np.where(SHAPE, COLOUR[..., 0], 0))


def test_palette_is_applied_and_its_transparent_colour_is_black(tmp_path):
    image = palette_image(SHAPE, [10, 20, 30, 200, 100, 50])
    plain = read_image(save(image, tmp_path / "a.png"))
    assert plain[0, 0].tolist() == [10, 20, 30]
    assert plain[3, 4].tolist() == [200, 100, 50]
    clear = read_image(save(image, tmp_path / "b.png", transparency=0))
    assert clear[0, 0].tolist() == [0, 0, 0]
    assert clear[3, 4].tolist() == [200, 100, 50]


def test_1_bit_image_is_black_and_white(tmp_path):
    image = read_image(save(Image.fromarray(SHAPE), tmp_path / "a.png"))
    np.testing.assert_array_equal(image[..., 2], SHAPE * 255)


def test_cmyk_is_converted_without_inverting(tmp_path):
    bright = Image.new("RGB", (16, 16), (200, 120, 90))
    image = read_image(save(bright.convert("CMYK"), tmp_path / "a.jpg", quality=95))
    np.testing.assert_allclose(image.mean((0, 1)), (200, 120, 90), atol=4)


def test_content_decides_not_the_extension(tmp_path):
    path = save(Image.fromarray(COLOUR), tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(path), COLOUR)


@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_image_size_and_mask(tmp_path, orientation, extension):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if extension == "webp" else {}
    path = save(Image.fromarray(COLOUR), tmp_path / f"a.{extension}", exif=exif, **options)
    in_memory = Image.fromarray(COLOUR)
    in_memory.info["exif"] = exif.tobytes()
    in_memory.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(in_memory))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]
    levels = mask_levels(path)
    assert (levels.height, levels.width) == expected.shape[:2]


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_orientation_is_applied_once_to_16_bit_colour(tmp_path, extension):
    exif = Image.Exif()
    exif[0x0112] = 6
    eight = save(Image.fromarray(COLOUR), tmp_path / f"eight.{extension}", exif=exif)
    path = tmp_path / f"a.{extension}"
    deep = COLOUR.astype(np.uint16) * 257
    if extension == "png":  # the chunk with the orientation follows the header, 33 bytes long
        cv2.imwrite(str(path), deep[..., ::-1])
        content = path.read_bytes()
        path.write_bytes(content[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + content[33:])
    else:
        path.write_bytes(tiff(deep, orientation=6))
    np.testing.assert_array_equal(read_image(path), read_image(eight))


def test_file_of_several_pages_needs_a_page(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), value, np.uint8)) for value in (10, 20, 30)]
    path = save(pages[0], tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"a\.tif: has 3 pages.*--page \(0 to 2\)"):
            read(path)
    assert read_image(path, page=2).max() == 30
    assert image_size(path, page=2) == (4, 6)
    with pytest.raises(DataError, match="--page 3 is beyond 0 to 2"):
        read_image(path, page=3)


def test_page_of_a_16_bit_colour_stack_is_the_one_asked_for(tmp_path):
    path = tmp_path / "a.tif"
    stack = [np.full((4, 6, 3), value * 257, np.uint16) for value in (10, 20)]
    assert cv2.imwritemulti(str(path), stack)
    assert read_image(path, page=1).max() == 20
    assert read_image(path, page=0).max() == 10


def test_page_does_not_concern_files_of_one_page(tmp_path):
    path = save(Image.fromarray(COLOUR), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path, page=3), COLOUR)


def test_photo_with_a_preview_in_the_same_file_is_its_first_frame(tmp_path):
    photo, preview = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (8, 8))
    path = save(photo, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert read_image(path).min() == 255


def test_animation_says_how_many_frames(tmp_path):
    frames = [Image.new("L", (6, 4), value) for value in (0, 100, 200)]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="3 pages or frames"):
        read_image(path)


BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"this is not a picture\n", "a text file"),
    "html": (b"\n<!DOCTYPE html><title>404</title>", "HTML page"),
    "binary": (bytes(range(256)), "unknown kind of file"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_image_is_named_for_what_it_is(tmp_path, case):
    content, words = BROKEN[case]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, image_size, mask_levels):
        with pytest.raises(DataError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"missing\.png: cannot be read: No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [10000, 60000])  # Pillow warns of the first and refuses the second
def test_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    path = bomb(tmp_path / "bomb.png", side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=rf"bomb\.png: .*{side} x {side}"):
                read(path)
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(tmp_path, mode):
    path = save(Image.new(mode, (4, 4), 1), tmp_path / "a.tif")
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        read_image(path)


def _encoded(extension: str) -> bytes:
    buffer = io.BytesIO()
    smooth = cv2.resize(COLOUR, (64, 48), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(buffer, extension)
    return buffer.getvalue()


ENCODED = {extension: _encoded(extension) for extension in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")}


@settings(deadline=None)  # files are slow at times
@given(st.sampled_from(sorted(ENCODED)), st.floats(0, 0.97))
def test_file_cut_off_anywhere_is_an_error(tmp_path_factory, extension, kept):
    path = tmp_path_factory.getbasetemp() / "cut.image"
    path.write_bytes(ENCODED[extension][: int(kept * len(ENCODED[extension]))])
    with pytest.raises(DataError, match=r"cut\.image"):
        read_image(path)


def test_truncated_file_says_that_it_is_cut_off(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(ENCODED["JPEG"][: len(ENCODED["JPEG"]) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: the file is cut off"):
        read_image(path)


def test_truncated_16_bit_colour_is_an_error_though_cv2_reads_it(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), RNG.integers(0, 65536, (40, 40, 3), dtype=np.uint16))
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match="cut off"):
        read_image(path)


# Masks

RED, BLACK, WHITE, DARK = [255, 0, 0], [0, 0, 0], [255, 255, 255], [128, 0, 0]
FORMS = {
    "0/1": lambda: Image.fromarray(SHAPE.astype(np.uint8)),
    "0/255": lambda: Image.fromarray(SHAPE.astype(np.uint8) * 255),
    "16 bits 0/1": lambda: Image.fromarray(SHAPE.astype(np.uint16)),
    "16 bits 0/65535": lambda: Image.fromarray(SHAPE.astype(np.uint16) * 65535),
    "1 bit": lambda: Image.fromarray(SHAPE),
    "RGB": lambda: Image.fromarray(np.repeat(SHAPE[..., None], 3, 2).astype(np.uint8) * 255),
    "RGBA opaque": lambda: Image.fromarray(
        np.dstack([SHAPE, SHAPE, SHAPE, SHAPE | True]).astype(np.uint8) * 255
    ),
    "RGBA alpha": lambda: Image.fromarray(np.dstack([SHAPE | True] * 3 + [SHAPE]).astype(np.uint8) * 255),
    "palette dark": lambda: palette_image(SHAPE, BLACK + DARK),
    "palette white": lambda: palette_image(SHAPE, BLACK + WHITE),
}


@pytest.mark.parametrize("others", [None, "0/255"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_binary_mask_is_read_alone_and_beside_others(tmp_path, form, others):
    path = save(FORMS[form](), tmp_path / "a.png")
    levels = [mask_levels(path)]
    if others:
        levels.append(mask_levels(save(FORMS[others](), tmp_path / "other.png")))
    reading = decide_reading(levels)
    mask = read_mask(path, reading, "foreground")
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, SHAPE)
    assert levels[0].foreground_pixels(reading, "foreground") == SHAPE.sum()


def test_grey_borders_anywhere_in_the_set_make_half_the_threshold_everywhere(tmp_path):
    border = np.zeros((HEIGHT, WIDTH), np.uint8)
    border[2:8, 3:15] = 255
    border[1, 3:15], border[8, 3:15] = 127, 128
    faint = np.zeros((HEIGHT, WIDTH), np.uint8)
    faint[0, 0] = 1
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, pixels in zip(paths, (border, faint), strict=True):
        Image.fromarray(pixels).save(path)
    reading = decide_reading(map(mask_levels, paths))
    assert reading.foreground == "above-half"
    np.testing.assert_array_equal(read_mask(paths[0], reading, "foreground"), border > 127)
    assert read_mask(paths[1], reading, "foreground").sum() == 0


def test_jpeg_noise_does_no_harm(tmp_path):
    sharp = np.pad(np.kron(SHAPE, np.ones((9, 9))), 5)  # borders inside the blocks of 8 x 8 pixels
    path = save(Image.fromarray(sharp.astype(np.uint8) * 255), tmp_path / "a.jpg", quality=40)
    levels = mask_levels(path)
    assert levels.lossy
    assert len(levels.counts) > 2
    mask = read_mask(path, decide_reading([levels]), "foreground")
    assert np.abs(mask - sharp).mean() < 0.002


def test_white_before_black_in_a_palette_is_not_inverted(tmp_path):
    path = save(palette_image(~SHAPE, WHITE + BLACK), tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(path, decide_reading([mask_levels(path)]), "foreground"), SHAPE)


def test_palette_of_many_colours_is_read_by_luminance(tmp_path):
    path = save(palette_image(SHAPE * 2, BLACK + RED + WHITE), tmp_path / "a.png")
    other = save(palette_image(SHAPE, BLACK + RED + WHITE), tmp_path / "b.png")
    reading = decide_reading(map(mask_levels, (path, other)))
    assert reading.palette == "luminance"
    assert read_mask(path, reading, "foreground").sum() == SHAPE.sum()
    assert read_mask(other, reading, "foreground").sum() == 0  # red has luminance 76; inspection reports it


VALUES = {"cell": 100, "nucleus": 200}


def test_class_values_take_the_nearest_value(tmp_path):
    pixels = np.array([[0, 49, 51, 100, 149, 151, 200, 255]], np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    reading = decide_reading([mask_levels(path)], VALUES)
    assert read_mask(path, reading, "cell")[0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert read_mask(path, reading, "nucleus")[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 255), min_size=1), st.integers(0, 255))
def test_each_value_belongs_to_the_background_or_to_one_nearest_class(values, value):
    if len(set(values.values())) < len(values):
        return
    reading = MaskReading("above-half", values)
    pixel = np.array([value], np.uint8)
    members = [name for name in values if reading.is_foreground(pixel, 255, None, name)[0]]
    distances = {name: abs(value - grey) for name, grey in values.items()} | {"": value}
    assert len(members) <= 1
    assert distances[(members or [""])[0]] == min(distances.values())


@pytest.mark.parametrize(("values", "rule"), [({"cat": 8, "dog": 12}, "index"), ({"cat": 76}, "luminance")])
def test_palette_with_class_values_is_read_by_what_they_name(tmp_path, values, rule):
    colours = BLACK * 8 + RED + BLACK * 3 + WHITE
    path = save(palette_image(np.where(SHAPE, 8, 0), colours), tmp_path / "a.png")
    reading = decide_reading([mask_levels(path)], values)
    assert reading.palette == rule
    np.testing.assert_array_equal(read_mask(path, reading, "cat"), SHAPE)


def test_masks_of_a_sample_are_the_mean_over_raters_for_each_class(tmp_path):
    first = save(FORMS["0/255"](), tmp_path / "1.png")
    second = save(Image.new("L", (WIDTH, HEIGHT), 0), tmp_path / "2.png")
    sample = Sample("a", "train", tmp_path / "a.jpg", {"disc": (first, second), "cup": (second, second)})
    reading = decide_reading(map(mask_levels, (first, second)))
    masks = read_masks(sample, reading, ("cup", "disc"))
    assert masks.shape == (2, HEIGHT, WIDTH)
    assert masks.dtype == np.float32
    np.testing.assert_array_equal(masks[1], SHAPE * 0.5)
    assert masks[0].sum() == 0


def test_classes_that_share_a_file_are_read_apart(tmp_path):
    path = save(Image.fromarray(np.where(SHAPE, 200, 100).astype(np.uint8)), tmp_path / "a.png")
    sample = Sample("a", "train", tmp_path / "a.jpg", {"nucleus": (path,), "cell": (path,)})
    masks = read_masks(sample, decide_reading([mask_levels(path)], VALUES), ("nucleus", "cell"))
    np.testing.assert_array_equal(masks, np.stack([SHAPE, ~SHAPE]))


def test_raters_of_different_size_are_an_error(tmp_path):
    paths = [save(Image.new("L", (side, 4), 0), tmp_path / f"{side}.png") for side in (4, 5)]
    sample = Sample("a", "train", tmp_path / "a.jpg", {"disc": tuple(paths)})
    with pytest.raises(DataError, match=r"differ in size: .*4\.png 4 x 4, .*5\.png 5 x 4"):
        read_masks(sample, MaskReading(), ("disc",))


def test_levels_tell_areas_from_thin_borders(tmp_path):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[10:60, 10:60] = 255
    pixels[10:60, 60] = 128
    assert mask_levels(save(Image.fromarray(pixels), tmp_path / "a.png")).areas == {0, 255}
    pixels[10:60, 60:70] = 128
    assert mask_levels(save(Image.fromarray(pixels), tmp_path / "a.png")).areas == {0, 128, 255}


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (MaskReading("above-zero"), "values 0/1 or 0/largest: above 0 is foreground"),
        (MaskReading("above-half"), "above half of the range"),
        (MaskReading("above-half", VALUES), "0 background, 100 cell, 200 nucleus"),
        (MaskReading("above-half", {}, "index"), "palette masks by index"),
    ],
)
def test_reading_is_described_in_words(reading, words):
    assert words in reading.describe()
