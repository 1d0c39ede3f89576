"""The contact sheet of a data set: which images it shows, and that no fault keeps it from being drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samfit.data.inspect import inspect
from samfit.data.sources import find_samples
from samfit.report import data_sheet
from samfit.report.overlays import prediction_colour


def draw(folder: Path, names: list[str], split: str = "train") -> None:
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 5:30], mask[10:15, 10:20] = 128, 255
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / split / kind / f"{name}.png")


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the names and faults of the images on the sheet, in their order."""
    tiles = []
    tile = data_sheet._tile

    def watched(sample, classes, inspection, level, page):
        tiles.append((sample.id, level))
        return tile(sample, classes, inspection, level, page)

    monkeypatch.setattr(data_sheet, "_tile", watched)
    sheet(folder)
    return tiles


def sheet(folder: Path) -> np.ndarray:
    found = find_samples("folder", folder, values={"ring": 128, "core": 255})
    return data_sheet.data_sheet(found, inspect(found))


def test_a_large_split_is_shown_from_its_first_image_to_its_last(tmp_path, monkeypatch):
    draw(tmp_path, [f"{number:02}" for number in range(29)])
    draw(tmp_path, ["only"], "test")
    expected = [*(f"{number:02}" for number in range(0, 29, 2)), "only"]
    assert [name for name, _ in shown(tmp_path, monkeypatch)] == expected


def test_images_with_a_fault_are_shown_first_and_at_most_as_many_as_there_is_room_for(tmp_path, monkeypatch):
    draw(tmp_path, [f"{number:02}" for number in range(20)])
    (tmp_path / "train/masks/19.png").write_bytes(b"")
    Image.new("L", (40, 30)).save(tmp_path / "train/masks/18.png")
    tiles = shown(tmp_path, monkeypatch)
    assert tiles[:3] == [("18", "warning"), ("19", "error"), ("00", "")]
    assert len(tiles) == 15
    for number in range(18):
        (tmp_path / f"train/images/{number:02}.png").write_bytes(b"")
    assert [level for _, level in shown(tmp_path, monkeypatch)] == ["error"] * 15


def test_each_class_is_drawn_in_its_colour(tmp_path):
    draw(tmp_path, ["a", "b"])
    drawn = sheet(tmp_path)
    for number in range(2):
        in_legend = 14 * 14
        assert (drawn == np.uint8(prediction_colour(number))).all(axis=2).sum() > 2 * in_legend


@pytest.mark.parametrize(
    "size", [(1, 300), (300, 1), (3, 2), (2000, 30)], ids=lambda size: f"{size[0]} x {size[1]}"
)
def test_images_of_any_size_and_masks_of_another_are_drawn(tmp_path, size):
    draw(tmp_path, ["a", "b"])
    Image.new("RGB", size, "green").save(tmp_path / "train/images/a.png")
    assert sheet(tmp_path).shape[1] > 2 * 240
