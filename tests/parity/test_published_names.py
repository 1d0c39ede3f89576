"""Names and shapes of every tensor equal those of the published models (the commits are in the file)."""

import json
from functools import cache
from importlib import import_module

import pytest
from support import ROOT, golden
from torch import nn

from samfit.backbones import card_of
from samfit.methods import cad, sam_adapter

SAM = {
    "sam-vit-b": "segment-anything/vit_b",
    "sam-vit-l": "segment-anything/vit_l",
    "sam-vit-h": "segment-anything/vit_h",
}
EFFICIENT_SAM = {"efficientsam-ti": "EfficientSAM/Ti", "efficientsam-s": "EfficientSAM/S"}
TENSORS = {
    "sam-vit-b": 314,
    "sam-vit-l": 482,
    "sam-vit-h": 594,
    "efficientsam-ti": 278,
    "efficientsam-s": 278,
}


@cache
def published() -> dict[str, dict[str, tuple[list[int], str]]]:
    return json.loads(golden("published_state_dict_keys.json").read_text())["names"]


def found(module: nn.Module, names: dict[str, str]) -> dict[str, list[object]]:
    state = module.state_dict()
    assert names.keys() == state.keys()
    return {
        names[name]: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("backbone", "model", "size"),
    [(name, model, 1024) for name, model in (SAM | EFFICIENT_SAM).items()]
    + [(name, model, 256) for name, model in EFFICIENT_SAM.items()],
)
def test_names_shapes_and_types_are_the_published_ones(backbone: str, model: str, size: int):
    card = card_of(backbone)
    built = import_module(f"samfit.backbones.{card.module}").build(card, size, card.fit)
    assert len(published()[model]) == TENSORS[backbone]
    assert found(built, built.published_names()) == published()[model]


def test_another_name_or_shape_is_caught():
    card = card_of("efficientsam-ti")
    built = import_module("samfit.backbones.efficient_sam").build(card, 256, card.fit)
    names = built.published_names()
    expected = published()[EFFICIENT_SAM["efficientsam-ti"]]
    assert found(built, names | {"image_encoder.pos_embed": "image_encoder.pos_embedding"}) != expected
    built.image_encoder.pos_embed = nn.Parameter(built.image_encoder.pos_embed[:, 1:])
    assert found(built, names) != expected


def test_what_lenient_loading_of_the_published_code_leaves_out_is_as_the_docs_say():
    loading = json.loads(golden("published_state_dict_keys.json").read_text())["loading"]
    left_out = {model: len(facts["names_of_the_file_left_unused"]) for model, facts in loading.items()}
    efficient = {left_out[model] for model in left_out if model.startswith("MSA/efficient_sam")}
    sam = {left_out[model] for model in left_out if model.startswith("MSA/sam")}
    assert (efficient, sam) == ({48}, {32})
    assert {left_out[model] for model in left_out if not model.startswith("MSA/")} == {0}
    text = (ROOT / "docs/departures.md").read_text()
    assert "48 of 278 tensors" in text
    assert "32 of 314 tensors" in text


@pytest.mark.parametrize(
    ("model", "adapter", "module", "count"),
    [
        ("CAD/vit_b", cad.ConvAdapter(256, grid=64), cad, 23),
        (
            "CAD-repository SAM-Adapter/vit_b",
            sam_adapter.SamAdapter(768, patch=16, depth=12),
            sam_adapter,
            32,
        ),
    ],
)
def test_names_and_shapes_of_an_adapter_are_the_published_ones(model, adapter, module, count):
    sam = published()[SAM["sam-vit-b"]]
    expected = {
        name: entry
        for name, entry in published()[model].items()
        if name not in sam and ".up_projection." not in name  # the shared projection again, under each block
    }
    assert len(expected) == count
    assert found(adapter, module.published_names(adapter)) == expected


@pytest.mark.parametrize(
    ("backbone", "model", "size"),
    [
        ("sam-vit-b", "sam vit_b sam_adpt image_size 1024", 1024),
        ("sam-vit-b", "sam vit_b sam_adpt image_size 1024 multimask_output 2", 1024),
        ("sam-vit-b", "sam vit_b sam_adpt image_size 256", 256),
        *(
            (f"efficientsam-{name.lower()}", f"efficient_sam {name} sam_adpt image_size {size}", size)
            for name in ("Ti", "S")
            for size in (1024, 256)
        ),
    ],
)
def test_names_of_the_medical_adapter_and_its_backbones_are_the_published_ones(backbone, model, size):
    from samfit.methods import medical_adapter
    from samfit.options import BlockOptions

    card = card_of(backbone, "medical-sam-adapter")
    built = import_module(f"samfit.backbones.{card.module}").build(card, size, card.fit)
    adapter = medical_adapter.build(built, BlockOptions(), 0)
    ours = found(built, built.published_names()) | found(adapter, medical_adapter.published_names(adapter))
    names = published()[f"MSA/{model}"]
    expected = {name: entry for name, entry in names.items() if ".Depth_Adapter." not in name}
    if size == 256 and card.module == "sam":  # SAM's table is resized when it is loaded
        assert ours.pop("image_encoder.pos_embed") == [[1, 16, 16, 768], "float32"]
        assert expected.pop("image_encoder.pos_embed") == [[1, 64, 64, 768], "float32"]
    assert ours == expected
