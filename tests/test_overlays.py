import numpy as np
import pytest
from PIL import Image

from samfit.errors import StorageError
from samfit.report.overlays import (
    ERROR_COLOURS,
    PREDICTION_COLOURS,
    TRUTH_COLOUR,
    contact_sheet,
    draw_errors,
    draw_overlay,
    legend,
    prediction_colour,
    with_caption,
    write_png,
)


def square(height: int = 60, width: int = 80, top: int = 20, left: int = 30, side: int = 20) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(axis=-1)


def test_the_area_is_tinted_and_the_rest_left_alone():
    image = np.full((60, 80, 3), 200, np.uint8)
    picture = draw_overlay(image, square())
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[30, 40], np.rint(150 + 0.25 * np.array(PREDICTION_COLOURS[0])))
    np.testing.assert_array_equal(picture[:15], image[:15])
    np.testing.assert_array_equal(picture[:, 60:], image[:, 60:])
    assert (image == 200).all()


def test_the_outline_lies_on_the_border_of_the_mask():
    picture = draw_overlay(np.full((60, 80, 3), 200, np.uint8), square())
    line = has_colour(picture, PREDICTION_COLOURS[0])
    assert line[20, 30:50].all()
    assert line[20:40, 30].all()
    assert not line[22:38, 32:48].any()


@pytest.mark.parametrize("width", [5, 600])
def test_a_caption_stands_below_the_picture_and_is_never_cut(width):
    picture = np.full((40, width, 3), 200, np.uint8)
    lines = ("protocol: msa-guide", "prompt: click, from the truth")
    captioned = with_caption(picture, lines)
    np.testing.assert_array_equal(captioned[:40, :width], picture)
    assert captioned.shape[1] == max(width, captioned.shape[1])
    below = captioned[40:].min(axis=-1) < 255
    first, second = np.array_split(below, 2)
    assert first.any()
    assert second.any()
    assert not below[:, -2:].any()  # the text ends inside
    assert below.any(axis=0).nonzero()[0].max() > 100
    np.testing.assert_array_equal(with_caption(picture, ()), with_caption(picture, ())[:40])


def test_a_hole_in_the_mask_has_an_outline_too():
    mask = square() & ~square(top=26, left=36, side=8)
    picture = draw_overlay(np.full((60, 80, 3), 200, np.uint8), mask)
    assert has_colour(picture, PREDICTION_COLOURS[0])[25, 37:43].all()


def test_the_truth_has_an_outline_of_its_own_colour_only():
    image = np.full((60, 80, 3), 200, np.uint8)
    picture = draw_overlay(image, np.zeros((60, 80), bool), square())
    assert has_colour(picture, TRUTH_COLOUR)[20, 30:50].all()
    np.testing.assert_array_equal(picture[30, 40], image[30, 40])


def test_classes_have_different_colours():
    masks = np.stack([square(), square(top=2, left=2, side=10)])
    picture = draw_overlay(np.zeros((60, 80, 3), np.uint8), masks, masks[:, ::-1])
    assert has_colour(picture, PREDICTION_COLOURS[0])[20, 40]
    assert has_colour(picture, PREDICTION_COLOURS[1])[2, 6]
    assert [colour for _, colour in legend(["disc", "cup"])] == [*PREDICTION_COLOURS[:2], TRUTH_COLOUR]
    assert [name for name, _ in legend(["disc", "cup"])] == ["prediction: disc", "prediction: cup", "truth"]
    assert [name for name, _ in legend(["lesion"])] == ["prediction", "truth"]
    assert prediction_colour(len(PREDICTION_COLOURS)) == PREDICTION_COLOURS[0]
    assert len({*PREDICTION_COLOURS, TRUTH_COLOUR}) == 7


def test_lines_are_wider_on_larger_images():
    widths = []
    for size in (100, 2000):
        mask = square(size, size, size // 4, size // 4, size // 2)
        picture = draw_overlay(np.zeros((size, size, 3), np.uint8), mask)
        widths.append(has_colour(picture, PREDICTION_COLOURS[0])[size // 2, : size // 2].sum())
    assert widths[0] <= 2
    assert 6 <= widths[1] <= 10


def test_an_image_of_one_pixel_is_drawn():
    picture = draw_overlay(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool), np.ones((1, 1), bool))
    assert picture.shape == (1, 1, 3)


WIDE, TALL = (90, 0, 200), (0, 90, 200)


def sheet(rows: int, **options) -> np.ndarray:
    wide, tall = np.zeros((60, 80, 3), np.uint8), np.zeros((80, 60, 3), np.uint8)
    wide[:], tall[:] = WIDE, TALL
    pictures = [wide, tall]
    captions = [f"image {number}" for number in range(rows)]
    return contact_sheet([pictures] * rows, captions, ["picture", "mask"], **options)


def test_a_sheet_shows_every_picture_whole_at_its_aspect():
    page = sheet(2)
    assert page.dtype == np.uint8
    assert has_colour(page, WIDE).sum() == has_colour(page, TALL).sum() == 2 * 240 * 180
    assert has_colour(page, WIDE).sum(axis=1).max() == has_colour(page, TALL).sum(axis=0).max() / 2 == 240


def test_a_sheet_has_white_margins_and_grows_with_its_rows():
    page, longer = sheet(1), sheet(3)
    for edge in (page[:10], page[-10:], page[:, :10], page[:, -10:]):
        assert (edge == 255).all()
    assert longer.shape[0] > 2 * page.shape[0]
    assert longer.shape[1] == page.shape[1]


def test_captions_headers_and_legend_are_written():
    pictures = [[np.full((60, 80, 3), 255, np.uint8)]]
    assert (contact_sheet(pictures, [""], []) == 255).all()
    for captions, headers, colours in (
        (["a"], [], []),
        ([""], ["a"], []),
        ([""], [], [("a", TRUTH_COLOUR)]),
    ):
        page = contact_sheet(pictures, captions, headers, colours)
        assert (page < 128).any()
        assert has_colour(page, TRUTH_COLOUR).any() == bool(colours)


def test_a_long_caption_is_not_cut():
    pictures = [[np.full((60, 80, 3), 255, np.uint8)]]
    page = contact_sheet(pictures, ["a caption that is much longer than its picture is wide: " * 3], [])
    assert (page[:, -10:] == 255).all()
    assert page.shape[1] > 600


def test_an_empty_sheet_is_white_paper():
    assert (contact_sheet([], [], []) == 255).all()


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.arange(60, dtype=np.uint8).reshape(4, 5, 3), "RGB"),
        (np.arange(20, dtype=np.uint8).reshape(4, 5), "L"),
        (np.linspace(0, 65535, 20).astype(np.uint16).reshape(4, 5), "I;16"),
        (np.eye(4, 5, dtype=bool), "L"),
    ],
)
def test_a_png_holds_exactly_what_was_given(tmp_path, array, mode):
    path = tmp_path / "new" / "picture.png"
    write_png(path, array)
    expected = array * np.uint8(255) if array.dtype == bool else array
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(picture), expected)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_png_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/picture\.png"):
        write_png(tmp_path / "file" / "picture.png", np.zeros((2, 2), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_are_coloured_by_their_kind_on_a_grey_image():
    image = np.full((60, 80, 3), (90, 100, 110), np.uint8)
    truth, mask = square(left=30), square(left=40)
    picture = draw_errors(image, mask, truth)
    places = {"right": (30, 45), "too much": (30, 55), "missed": (30, 35)}
    for name, colour in ERROR_COLOURS:
        np.testing.assert_array_equal(picture[places[name]], np.rint(40 + 0.6 * np.array(colour)))
    assert (picture[0, 0] == 100).all()


def test_of_several_classes_any_error_of_a_pixel_counts():
    image = np.zeros((60, 80, 3), np.uint8)
    truth = np.stack([square(), square(side=10)])
    picture = draw_errors(image, np.stack([square(), np.zeros((60, 80), bool)]), truth)
    colours = {name: np.rint(0.6 * np.array(colour)) for name, colour in ERROR_COLOURS}
    np.testing.assert_array_equal(picture[22, 32], colours["missed"])
    np.testing.assert_array_equal(picture[38, 48], colours["right"])
