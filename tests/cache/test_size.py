"""How many bytes embeddings take, and how many there are for them."""

from pathlib import Path

import pytest
import torch

from samfit.backbones import BACKBONES
from samfit.cache import size
from samfit.cache.size import cache_bytes, embedding_bytes, free_disk, free_memory, held_bytes
from samfit.methods import attach
from samfit.methods.precision import autocast, store_frozen
from samfit.testing import SMALL, small_backbone

GIB = 2**30


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("family", SMALL)
def test_an_embedding_takes_what_is_said_before_it_is_made(family, precision):
    model = attach(small_backbone(family), "decoder")
    store_frozen(model, precision)
    frame = model.backbone.frame
    with torch.no_grad(), autocast(precision, "cpu"):
        embedding = model.encode(torch.randn(1, 3, frame.size, frame.size))
    assert embedding.nbytes == embedding_bytes(model.backbone.card, frame.size, precision)


@pytest.mark.parametrize(
    ("numbers", "augment", "epochs", "images"),
    [
        ("32", "none", 20, 110),
        ("32", "flips", 20, 810),
        ("32", "flips", 3, 310),
        ("bf16", "flips", 3, 155),
        ("16", "none", 3, 55),
    ],
)
def test_a_run_takes_one_embedding_for_each_view_of_a_training_image(numbers, augment, epochs, images):
    found = cache_bytes(
        BACKBONES["sam-vit-b"],
        image_size=1024,
        numbers=numbers,
        augment=augment,
        epochs=epochs,
        training=100,
        validation=10,
    )
    assert found == images * 256 * 64 * 64 * 4


def test_what_is_free_is_told():
    assert free_memory() > 0
    assert free_disk(Path("/tmp/samfit/not/there")) > 0


def test_a_folder_that_may_not_be_written_has_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(size.os, "access", lambda path, mode: path != tmp_path)
    assert free_disk(tmp_path / "embeddings") == 0


def group(folder: Path, limit: object, used: int, files: int) -> None:
    """Write what the system says of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")


def test_the_tightest_control_group_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(size, "_CONTROL", {"": (str(tmp_path), *size._CONTROL[""][1:])})
    group(tmp_path / "job", "max", 9 * GIB, 0)
    group(tmp_path / "job/step", 8 * GIB, 6 * GIB, 1 * GIB)
    lines = ["1:cpu:/", "0::/job/step/task"]
    assert list(size._left_in_groups(lines)) == [3 * GIB]
    group(tmp_path / "job", 5 * GIB, 4 * GIB, 0)
    assert sorted(size._left_in_groups(lines)) == [1 * GIB, 3 * GIB]


def test_everything_below_a_folder_counts(tmp_path):
    assert held_bytes(tmp_path / "nothing") == 0
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(bytes(10))
    (tmp_path / "a/b/.tmp-two").write_bytes(bytes(5))
    assert held_bytes(tmp_path) == 15
