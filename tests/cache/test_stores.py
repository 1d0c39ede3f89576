"""An embedding is found again by everything that it depends on, and never if it was damaged."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from samfit.backbones import BACKBONES
from samfit.cache.stores import PREPROCESSING, InMemory, Key, OnDisk
from samfit.data.shown import Shown
from samfit.data.transforms import UNMOVED, View, warp_image
from samfit.frame import Frame

FRAME = Frame(64, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
KEY = Key("image", None, UNMOVED, FRAME, "sam-tiny", None, "base", "32")
OTHERS = {
    "image": replace(KEY, image_sha256="another"),
    "page": replace(KEY, page=1),
    "mirror": replace(KEY, view=View(mirror=True, turns=0)),
    "turns": replace(KEY, view=View(mirror=False, turns=1)),
    "frame size": replace(KEY, frame=FRAME.at(128)),
    "fit": replace(KEY, frame=replace(FRAME, fit="squeeze")),
    "mean": replace(KEY, frame=replace(FRAME, mean=(1.0, 2.0, 3.5))),
    "std": replace(KEY, frame=replace(FRAME, std=(4.0, 5.0, 6.5))),
    "resampling": replace(KEY, frame=replace(FRAME, resampling="torch")),
    "backbone": replace(KEY, backbone="sam-vit-b"),
    "variant": replace(KEY, variant="medical-sam-adapter"),
    "base weights": replace(KEY, base_sha256="another"),
    "numbers": replace(KEY, numbers="bf16"),
    "preprocessing": replace(KEY, preprocessing=PREPROCESSING + 1),
}
SHOWN = Shown(Path("image.png"), UNMOVED)
EMBEDDING = torch.arange(-8.0, 8.0).reshape(1, 4, 2, 2)


def store_of(folder: Path, key: Key = KEY) -> OnDisk:
    return OnDisk(folder, lambda shown: key)


@pytest.fixture
def store(tmp_path) -> OnDisk:
    """Return a store on disk that holds one embedding."""
    store = store_of(tmp_path)
    store.put(SHOWN, EMBEDDING)
    return store


def the_file(store: OnDisk) -> Path:
    [file] = [path for path in store.folder.rglob("*") if path.is_file()]
    return file


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_embedding_comes_back_to_the_last_bit(tmp_path, dtype):
    embedding = torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    for store in (store_of(tmp_path), InMemory()):
        assert not store.holds(SHOWN)
        assert store.get(SHOWN) is None
        store.put(SHOWN, embedding.transpose(2, 3))
        assert store.holds(SHOWN)
        found = store.get(SHOWN)
        assert found is not None
        assert found.dtype == dtype
        assert torch.equal(found, embedding.transpose(2, 3))


def test_every_part_of_the_key_is_tried_here():
    changed = {
        field.name
        for field in fields(Key)
        for other in OTHERS.values()
        if getattr(other, field.name) != getattr(KEY, field.name)
    }
    assert changed == {field.name for field in fields(Key)}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_whatever_an_embedding_depends_on_makes_another_one_a_miss(store, other):
    elsewhere = store_of(store.folder, other)
    assert elsewhere.get(SHOWN) is None
    assert not elsewhere.holds(SHOWN)
    store.path(other).parent.mkdir(exist_ok=True)
    store.path(KEY).rename(store.path(other))  # a file in the wrong place says what it is
    assert elsewhere.get(SHOWN) is None
    assert not elsewhere.holds(SHOWN)


def _cut(share: float):
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return cut


def _flip_bit(place: int):
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return flip


DAMAGES = {
    "empty": _cut(0),
    "cut in its header": _cut(0.1),
    "cut in its values": _cut(0.95),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "another length of the header": _flip_bit(0),
    "another letter of the key": _flip_bit(60),
    "text": lambda path: path.write_text("no tensor\n"),
    "no key": lambda path: save_file({"embedding": EMBEDDING}, path),
    "no embedding": lambda path: save_file({"other": EMBEDDING}, path, metadata={"key": KEY.text}),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_as_good_as_not_there(store, damage):
    damage(the_file(store))
    assert store.get(SHOWN) is None


@pytest.mark.parametrize(
    "damage", [DAMAGES[name] for name in ("empty", "cut in its header", "cut in its values")]
)
def test_a_file_that_was_cut_off_is_seen_without_reading_its_values(store, damage):
    damage(the_file(store))
    assert not store.holds(SHOWN)
    store.put(SHOWN, EMBEDDING)
    assert torch.equal(store.get(SHOWN), EMBEDDING)


def test_no_damaged_bit_gives_a_wrong_embedding(store):
    file = the_file(store)
    whole = file.read_bytes()
    for place in range(len(whole)):
        _flip_bit(place)(file)
        found = store.get(SHOWN)
        assert found is None or torch.equal(found, EMBEDDING), place
        file.write_bytes(whole)
    values = range(len(whole) - EMBEDDING.nbytes, len(whole))
    for place in values:
        _flip_bit(place)(file)
        assert store.get(SHOWN) is None, place
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("backbone", "values", "total"),
    [
        ("sam-vit-b", [1.2206, 1.3256, 0.2402, 0.0], 189.886),
        ("efficientsam-s", [1.2272, 1.6466, 0.8199, 0.298], 276.363),
    ],
)
def test_a_frame_is_made_as_the_version_of_the_preprocessing_made_it(backbone, values, total):
    """Where these numbers change, so must PREPROCESSING: older embeddings would be found otherwise."""
    assert PREPROCESSING == 1
    card = BACKBONES[backbone]
    frame = Frame(16, card.mean, card.std, card.fit, card.resampling, card.upsampling)
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    view = View(mirror=True, turns=1)
    made = frame.to_model(warp_image(image, *view.matrix(5, 7)))
    assert made[1, 4, ::4].tolist() == pytest.approx(values, abs=1e-4)
    assert float(made.sum()) == pytest.approx(total, abs=1e-2)


def test_nothing_but_the_embedding_is_left_in_the_folder(store):
    store.put(SHOWN, EMBEDDING)  # as another process may do at the same time
    assert the_file(store) == store.path(KEY)
    assert the_file(store).stat().st_size < EMBEDDING.nbytes + 2000
