"""Base weights: random ones that carry the image, files that fit to the last tensor, and all that do not."""

import hashlib
import io
import logging
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from samfit.backbones import BACKBONES, card_of, load_backbone
from samfit.backbones.base import Backbone
from samfit.backbones.card import BackboneCard, WeightsFile
from samfit.backbones.download import fetch
from samfit.backbones.initial import draw_weights
from samfit.backbones.weights import hash_of, load_base, read_checkpoint
from samfit.errors import WeightsError
from samfit.files import sha256_of_file
from samfit.types import BOTTOM_RIGHT, POSITIVE, TOP_LEFT, Prompts

CARDS = {
    "sam-tiny": card_of("sam-tiny"),
    "efficientsam": replace(
        card_of("efficientsam-ti"),
        depth=2,
        image_size=128,
        architecture=card_of("efficientsam-ti").architecture | {"width": 64, "heads": 2, "mlp_width": 128},
    ),
}
SAM, EFFICIENT = CARDS["sam-tiny"], CARDS["efficientsam"]


def build(card: BackboneCard, size: int | None = None) -> Backbone:
    module = import_module(f"samfit.backbones.{card.module}")
    return module.build(card, size or card.image_size, card.fit).eval().requires_grad_(False)


@cache
def drawn(name: str, seed: int = 0) -> Backbone:
    backbone = build(CARDS[name])
    draw_weights(backbone, seed)
    return backbone


def state_of(name: str, naming: str = "published") -> dict[str, Tensor]:
    """Return drawn weights under published names, the hub's or the module's own."""
    backbone = drawn(name)
    own = {key: key for key in backbone.state_dict()}
    names = {"published": backbone.published_names(), "hub": backbone.hub_names(), "own": own}[naming]
    return {names[key]: tensor for key, tensor in backbone.state_dict().items()}


def equal(a: Backbone, b: Backbone) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def prompts(size: int, kind: str) -> Prompts:
    s = size / 8
    points, labels = {
        "click": ([[2 * s, 2 * s]], [POSITIVE]),
        "other click": ([[6 * s, 5 * s]], [POSITIVE]),
        "box": ([[s, s], [4 * s, 5 * s]], [TOP_LEFT, BOTTOM_RIGHT]),
    }[kind]
    return Prompts(torch.tensor([points]), torch.tensor([labels]), has_box=kind == "box")


# Random weights


@pytest.mark.parametrize("name", CARDS)
def test_with_random_weights_the_embedding_changes_with_the_image(name: str):
    backbone = drawn(name)
    generator = torch.Generator().manual_seed(0)
    size = backbone.frame.size
    images = torch.randn(2, 3, 8, 8, generator=generator)
    frames = nn.functional.interpolate(images, (size, size), mode="bilinear")
    first, second = backbone.encode(frames)
    assert (first - second).norm() > 0.1 * first.norm()


@pytest.mark.parametrize("name", CARDS)
def test_with_random_weights_the_mask_changes_with_the_prompt(name: str):
    backbone = drawn(name)
    size = backbone.frame.size
    embedding = backbone.encode(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))
    click, other, box = (
        backbone.decode(embedding, prompts(size, kind)).logits for kind in ("click", "other click", "box")
    )
    assert (click - other).norm() > 0.01 * click.norm()
    assert (click - box).norm() > 0.01 * click.norm()


@pytest.mark.parametrize("name", CARDS)
def test_the_random_matrix_of_the_positions_has_deviation_one(name: str):
    (matrix,) = (tensor for key, tensor in state_of(name).items() if key.endswith("gaussian_matrix"))
    assert 0.8 < matrix.std() < 1.2


@pytest.mark.parametrize("name", CARDS)
def test_the_seed_decides_and_the_global_random_state_is_left_alone(name: str):
    again = build(CARDS[name])
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    draw_weights(again, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert equal(again, drawn(name))
    draw_weights(again, seed=1)
    state = again.state_dict()
    same = [key for key, tensor in drawn(name).state_dict().items() if torch.equal(tensor, state[key])]
    assert all("norm" in key or "neck" in key or "upscaling" in key for key in same)  # ones and zeros


@pytest.mark.parametrize("name", CARDS)
def test_norms_start_as_identity_and_position_tables_small(name: str):
    backbone = drawn(name)
    norms = [module for module in backbone.modules() if isinstance(module, (nn.LayerNorm, nn.GroupNorm))]
    assert len(norms) > 10
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    tables = {key: t for key, t in state_of(name).items() if key.split(".")[-1] in ("pos_embed", "rel_pos_h")}
    assert tables
    assert all(0.015 < table.std() < 0.025 for table in tables.values())


def test_a_tensor_that_no_rule_covers_is_an_error():
    backbone = build(EFFICIENT)
    backbone.register_buffer("stray", torch.zeros(1))
    backbone.blocks[0].register_parameter("gate", nn.Parameter(torch.zeros(1)))
    with pytest.raises(RuntimeError, match=r"image_encoder\.blocks\.0\.gate, stray$"):
        draw_weights(backbone, 0)


def test_random_weights_are_announced_and_hashed(caplog: pytest.LogCaptureFixture):
    backbone = build(EFFICIENT)
    load_base(backbone, "random", 0)
    assert caplog.record_tuples == [
        (
            "samfit",
            logging.WARNING,
            "random base weights: the encoder has learnt nothing",
        )
    ]
    assert backbone.weights_hash == hash_of(state_of("efficientsam"))
    assert equal(backbone, drawn("efficientsam"))


# Files that fit


def as_torch(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def as_old_torch(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def under_model(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": state}, path)


def as_training_checkpoint(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"epoch": 3, "model": "vit_b", "state_dict": state}, path)


def as_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def zipped(state: dict[str, Tensor], path: Path) -> None:
    inner = io.BytesIO()
    torch.save({"model": state}, inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pt", inner.getvalue())
        archive.writestr("__MACOSX/._weights.pt", b"what a Mac adds")


def zipped_safetensors(state: dict[str, Tensor], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/weights.safetensors", save(state))


WRITERS = [
    (as_torch, "w.pth"),
    (as_old_torch, "w.pth"),
    (under_model, "w.pt"),
    (as_training_checkpoint, "w.pth"),
    (as_safetensors, "w.safetensors"),
    (zipped, "w.pt.zip"),
    (zipped_safetensors, "w.zip"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_every_kind_of_file_gives_the_same_weights_and_hash(
    write: Callable[[dict[str, Tensor], Path], None], name: str, tmp_path: Path
):
    write(state_of("efficientsam"), tmp_path / name)
    backbone = build(EFFICIENT)
    load_base(backbone, tmp_path / name, 0)
    assert equal(backbone, drawn("efficientsam"))
    assert backbone.weights_hash == hash_of(state_of("efficientsam"))


@pytest.mark.parametrize("naming", ["published", "hub", "own"])
def test_published_names_the_hubs_and_own_names_load_alike(naming: str, tmp_path: Path):
    as_safetensors(state_of("sam-tiny", naming), tmp_path / "w.safetensors")
    backbone = build(SAM)
    load_base(backbone, str(tmp_path / "w.safetensors"), 0)
    assert equal(backbone, drawn("sam-tiny"))
    assert backbone.weights_hash == hash_of(state_of("sam-tiny"))


@pytest.mark.parametrize("both", [True, False])
def test_the_hubs_positional_matrix_may_have_either_name_or_both(both: bool, tmp_path: Path):
    state = state_of("sam-tiny", "hub")
    name, twin = (
        "shared_image_embedding.positional_embedding",
        "prompt_encoder.shared_embedding.positional_embedding",
    )
    state[twin] = state[name].clone() if both else state.pop(name)
    as_safetensors(state, tmp_path / "w.safetensors")
    backbone = build(SAM)
    load_base(backbone, tmp_path / "w.safetensors", 0)
    assert equal(backbone, drawn("sam-tiny"))


@pytest.mark.parametrize("name", CARDS)
def test_a_file_loads_at_another_image_size_with_the_same_hash(name: str, tmp_path: Path):
    as_torch(state_of(name), tmp_path / "w.pth")
    backbone = build(CARDS[name], 64)
    load_base(backbone, tmp_path / "w.pth", 0)
    assert backbone.weights_hash == hash_of(state_of(name))
    grid = 64 // CARDS[name].patch
    assert backbone.encode(torch.randn(1, 3, 64, 64)).shape[-2:] == (grid, grid)


def test_the_hash_is_of_names_types_shapes_and_values():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    digest = hash_of(state)
    strided = torch.arange(6.0).reshape(2, 3).T.contiguous().T
    assert digest == hash_of(dict(reversed(state.items()))) == hash_of(state | {"a": strided})
    others = (
        {"a": state["a"], "c": state["b"]},
        state | {"a": state["a"].reshape(3, 2)},
        state | {"a": state["a"].double()},
        state | {"a": state["a"] + torch.eye(2, 3) * 1e-6},
    )
    assert len({digest, *map(hash_of, others)}) == 5


def test_published_weights_come_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "w.pth"
    as_torch(state_of("efficientsam"), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = WeightsFile("w.pth", "http://nowhere.invalid/w.pth", path.stat().st_size, digest, "none")
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path))
    backbone = build(replace(EFFICIENT, weights=file))
    load_base(backbone, "published", 0)
    assert equal(backbone, drawn("efficientsam"))


def test_a_file_with_the_published_name_but_another_hash_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "efficient_sam_vitt.pt"
    as_torch(state_of("efficientsam"), path)
    load_base(build(EFFICIENT), path, 0)
    assert caplog.messages == [f"{path} is not the published {path.name}: its SHA-256 is another"]
    caplog.clear()
    load_base(build(EFFICIENT), path.rename(tmp_path / "mine.pt"), 0)
    assert caplog.messages == []


# Files that do not


def refused(path: Path, card: BackboneCard = EFFICIENT) -> str:
    """Return the message of the refusal; the backbone must be as it was."""
    backbone = build(card)
    draw_weights(backbone, seed=5)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        load_base(backbone, path, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert backbone.weights_hash == ""
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_the_weights_of_sam_tiny_ship_with_samfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path / "none"))
    file, shipped = BACKBONES["sam-tiny"].weights, fetch(BACKBONES["sam-tiny"].weights)
    assert (shipped.stat().st_size, sha256_of_file(shipped)) == (file.size, file.sha256)
    assert shipped.stat().st_size < 12e6
    assert load_backbone("sam-tiny").weights_hash == hash_of(read_checkpoint(shipped))
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_not_there(tmp_path: Path):
    assert "is not there; expected published, random or a file" in refused(tmp_path / "none.pth")
    assert "is a folder" in refused(tmp_path)
    with pytest.raises(WeightsError, match="did you mean 'published'"):
        load_base(build(EFFICIENT), "publishd", 0)


def torch_bytes() -> bytes:
    content = io.BytesIO()
    torch.save(state_of("efficientsam"), content)
    return content.getvalue()


def zip_bytes(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"0" * 100)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", lambda: torch_bytes()[:-5000], "cut off or not a checkpoint"),
        ("w.pth", lambda: b"", "cut off or not a checkpoint"),
        ("w.pth", lambda: b"<!DOCTYPE html><html>not found</html>", "cut off or not a checkpoint"),
        ("w.pth", lambda: b"\x89PNG\r\n\x1a\n" + bytes(300), "cut off or not a checkpoint"),
        ("w.safetensors", lambda: save(state_of("efficientsam"))[:-5000], "cut off or not a checkpoint"),
        ("w.safetensors", torch_bytes, "cut off or not a checkpoint"),
        ("w.zip", lambda: zip_bytes("weights.pt")[:50], "cut off or not a checkpoint"),
        ("w.zip", lambda: zip_bytes("readme.txt"), "holds 0 files of weights, expected one"),
        ("w.zip", lambda: zip_bytes("a.pt", "b.pth"), "holds 2 files of weights, expected one"),
        ("w.zip", lambda: zip_bytes("a.safetensors"), "cut off or not a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint(name: str, content: Callable[[], bytes], message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content())
    assert message in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds no tensors with names (found: Tensor)"),
        ([torch.zeros(3)], "holds no tensors with names (found: list)"),
        ({}, "holds no tensors with names"),
        ({"epoch": 3, "optimizer": {}, "weight": torch.zeros(3)}, "no tensors are epoch, optimizer"),
    ],
)
def test_checkpoints_of_something_else(content: object, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "w.pth")
    assert message in refused(tmp_path / "w.pth")


class Payload:
    """Unpickling this writes the file `place`."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return exec, (f"open({str(self.place)!r}, 'w').close()",)


def pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def pickled_by_protocol_2(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def zipped_torch(content: object, path: Path) -> None:
    inner = io.BytesIO()
    torch.save(content, inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.pt", inner.getvalue())


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (torch.save, "w.pth"),
        (pickled, "w.pth"),
        (pickled_by_protocol_2, "w.pt"),
        (zipped_torch, "w.pt.zip"),
    ],
)
def test_a_pickle_with_code_is_refused_and_not_run(
    write: Callable[[object, Path], None], name: str, tmp_path: Path
):
    place = tmp_path / "it ran"
    write({"model": Payload(place)}, tmp_path / name)
    message = refused(tmp_path / name)
    assert "is a pickle with code in it" in message
    assert "refused, because loading it would run that code; nothing in it was run" in message
    assert not place.exists()


def test_missing_and_unexpected_names_are_listed_and_counted(tmp_path: Path):
    state = state_of("efficientsam")
    gone = [name for name in state if name.startswith("mask_decoder.transformer.layers.0.")]
    kept = {name: tensor for name, tensor in state.items() if name not in gone}
    torch.save(kept | {"extra.weight": torch.zeros(1)}, tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth")
    assert f"missing ({len(gone)}): {', '.join(gone[:10])} and {len(gone) - 10} more\n" in message
    assert message.endswith("unexpected (1): extra.weight")


def test_names_that_are_too_many_are_refused_too(tmp_path: Path):
    torch.save(state_of("efficientsam") | {"extra.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth").endswith(
        "does not fit efficientsam-ti\n  unexpected (1): extra.weight"
    )


def test_whole_numbers_are_no_weights(tmp_path: Path):
    torch.save({name: tensor.long() for name, tensor in state_of("efficientsam").items()}, tmp_path / "w.pth")
    assert "no floating-point numbers" in refused(tmp_path / "w.pth")


def test_wrong_shapes_are_listed_with_both(tmp_path: Path):
    state = state_of("efficientsam") | {
        "mask_decoder.iou_token.weight": torch.zeros(2, 256),
        "image_encoder.pos_embed": torch.zeros(1, 65, 64),
    }
    torch.save(state, tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth")
    assert "wrong shapes (2): " in message
    assert "image_encoder.pos_embed has shape (1, 65, 64)" in message
    assert "mask_decoder.iou_token.weight (2, 256) instead of (1, 256)" in message


@pytest.mark.parametrize("table", ["blocks.0.attn.rel_pos_h", "blocks.1.attn.rel_pos_w"])
def test_a_wrong_relative_table_is_found_in_window_blocks_and_global_ones(table: str, tmp_path: Path):
    name = f"image_encoder.{table}"
    torch.save(state_of("sam-tiny") | {name: torch.zeros(5, 32)}, tmp_path / "w.pth")
    assert f"{name}" in refused(tmp_path / "w.pth", SAM)


def test_the_message_names_the_backbone_that_the_file_fits(tmp_path: Path):
    torch.save(state_of("sam-tiny"), tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth")
    assert (
        "does not fit efficientsam-ti; it looks like weights of sam-tiny: use --backbone sam-tiny" in message
    )


def test_a_file_that_is_read_is_not_altered(tmp_path: Path):
    torch.save(state_of("efficientsam"), tmp_path / "w.pth")
    before = (tmp_path / "w.pth").read_bytes()
    backbone = build(EFFICIENT)
    load_base(backbone, tmp_path / "w.pth", 0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1)
    assert (tmp_path / "w.pth").read_bytes() == before
    assert torch.equal(
        read_checkpoint(tmp_path / "w.pth")["image_encoder.pos_embed"],
        state_of("efficientsam")["image_encoder.pos_embed"],
    )
