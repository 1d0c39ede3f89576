import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support import real_data

from samfit.data.drawn import as_faint_negative, draw_lesion, draw_lesions
from samfit.errors import StorageError

SPLITS = {"Training": 3, "Test": 2}


def drawn(folder: Path, seed: int = 0, *, faint_negatives: bool = False) -> Path:
    draw_lesions(folder, training=3, test=2, seed=seed, faint_negatives=faint_negatives)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_row_names_an_image_and_its_mask_of_the_same_size(tmp_path):
    drawn(tmp_path)
    for split, number in SPLITS.items():
        header, *lines = rows(tmp_path / f"ISBI2016_ISIC_Part1_{split}_GroundTruth.csv")
        assert header == ["", "img", "seg"]
        assert [line[0] for line in lines] == [str(i) for i in range(number)]
        for _, image, mask in lines:
            with Image.open(tmp_path / image) as picture, Image.open(tmp_path / mask) as truth:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (192, 144))
                assert (truth.format, truth.mode, truth.size) == ("PNG", "L", (192, 144))
                assert set(np.unique(np.asarray(truth))) == {0, 255}
    assert len(hashes(tmp_path)) == 2 * sum(SPLITS.values()) + 2


def test_no_image_is_in_both_splits(tmp_path):
    drawn(tmp_path)
    pictures = [digest for name, digest in hashes(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures)


def test_folders_files_and_columns_are_those_of_real_data(tmp_path):
    real = real_data("ph2_isic_layout")
    drawn(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in real.iterdir()}
    for path in tmp_path.glob("*.csv"):
        ours, theirs = rows(path), rows(real / path.name)
        assert ours[0] == theirs[0]
        assert [Path(part).parent for part in ours[1][1:]] == [Path(part).parent for part in theirs[1][1:]]
        suffixes = [
            name.removeprefix(Path(line[1]).stem)
            for line in (ours[1], theirs[1])
            for name in [Path(line[2]).name]
        ]
        assert suffixes[0] == suffixes[1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, again, other = drawn(tmp_path / "a"), drawn(tmp_path / "b"), drawn(tmp_path / "c", seed=1)
    assert hashes(first) == hashes(again)
    changed = [name for name, digest in hashes(other).items() if digest != hashes(first)[name]]
    assert len(changed) == 2 * sum(SPLITS.values())


def test_lesions_vary_and_are_darker_than_the_skin_around_them():
    shares, centres = [], []
    for seed in range(40):
        image, mask = draw_lesion(np.random.default_rng(seed), 96, 72)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert image[mask].mean() < image[near & ~mask].mean()
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2  # the background and one lesion
        shares.append(mask.mean())
        centres.append(np.argwhere(mask).mean(axis=0))
    assert 0.02 < min(shares) < 0.1
    assert 0.25 < max(shares) < 0.6
    assert (np.std(centres, axis=0) > 3).all()


def test_faint_negatives_differ_in_the_images_alone(tmp_path):
    plain, shifted = hashes(drawn(tmp_path / "a")), hashes(drawn(tmp_path / "b", faint_negatives=True))
    changed = [name for name, digest in shifted.items() if digest != plain[name]]
    assert len(changed) == sum(SPLITS.values())
    assert all(str(name).endswith(".jpg") for name in changed)


def test_in_a_faint_negative_most_lesions_are_brighter_than_the_skin_around_them():
    brighter = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image, mask = draw_lesion(rng, 96, 72)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        shifted = as_faint_negative(rng, image)
        brighter.append(shifted[mask].mean() > shifted[near & ~mask].mean())
    assert np.mean(brighter) > 0.9


@pytest.mark.parametrize("size", [(64, 48), (300, 400)])
def test_images_of_other_sizes_are_drawn_whole(size):
    image, mask = draw_lesion(np.random.default_rng(0), *size)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert mask.shape == (size[1], size[0])
    assert mask.any()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        draw_lesions(tmp_path / "file", training=1, test=0)
