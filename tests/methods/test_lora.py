"""`lora`: which layers get an update, what the update is, and that every option keeps a method's promises."""

import functools
import math
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import samfit
from samfit.errors import SettingError
from samfit.methods import attach, row_of
from samfit.methods.adapted import AdaptedModel
from samfit.testing import CHECKS, Case, small_backbone

OPTIONS = {
    "q and v": {"targets": ("q", "v")},
    "dora": {"dora": True},
    "everything": {"targets": ("q", "k", "v", "proj", "mlp"), "dora": True, "rslora": True},
}
SLOW_OR_NAMES = {"two_images_are_learned", "two_processes_equal_one", "names_equal_the_stored"}
FAMILY = "efficientsam-ti"
WIDTH = 32
LAYER = "image_encoder.blocks.1.attn.qkv"


def adapted(seed: int = 0, **options) -> AdaptedModel:
    return attach(small_backbone(FAMILY), "lora", seed=seed, **options)


def moved(model: AdaptedModel) -> AdaptedModel:
    """Give every trained tensor of the encoder another value; fresh updates are zero."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in updates(model).items():
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        assert tensor.any(), name
    return model


def updates(model: AdaptedModel) -> dict[str, Tensor]:
    """Return the trained tensors of the encoder by their names in the backbone."""
    return {
        name.removeprefix("backbone."): parameter.data
        for name, parameter in model.trained().items()
        if name.startswith("backbone.image_encoder.")
    }


def embedding(model: AdaptedModel) -> Tensor:
    size = model.backbone.frame.size
    frames = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.encode(frames)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("check", sorted(CHECKS.keys() - SLOW_OR_NAMES))
def test_every_option_keeps_what_methods_promise(check, options):
    CHECKS[check](Case(row_of("lora"), functools.partial(small_backbone, FAMILY), options=options))


@pytest.mark.parametrize(
    ("family", "options", "layers"),
    [
        ("sam-vit-b", {}, {"attn.qkv", "attn.proj"}),
        ("sam-vit-b", {"targets": "q,v"}, {"attn.qkv.q", "attn.qkv.v"}),
        ("sam-vit-b", {"targets": "mlp"}, {"mlp.lin1", "mlp.lin2"}),
        ("efficientsam-ti", {"targets": "k,mlp"}, {"attn.qkv.k", "mlp.fc1", "mlp.fc2"}),
    ],
)
def test_the_targets_get_an_update_in_every_block_and_nothing_else_of_the_encoder_is_trained(
    family, options, layers
):
    model = attach(small_backbone(family), "lora", **options)
    blocks = "layers" if family == "sam-vit-b" else "blocks"
    assert set(updates(model)) == {
        f"image_encoder.{blocks}.{block}.{layer}.lora_{matrix}.default.weight"
        for block in range(2)
        for layer in layers
        for matrix in "AB"
    }


def test_no_tensor_is_listed_twice():
    names = adapted().state_dict().keys()
    assert names
    assert [name for name in names if not name.startswith("backbone.")] == []


def test_with_late_blocks_earlier_ones_stay_as_they_are():
    model = adapted(late_blocks=1)
    assert {name.split(".")[2] for name in updates(model)} == {"1"}


@pytest.mark.parametrize("options", [{}, {"targets": ("q", "k", "v")}])
def test_before_the_first_step_the_embedding_is_the_base_s_to_the_last_bit(options):
    model = adapted(**options)
    start = embedding(model)
    model.keep_base()
    with model.disabled():
        assert torch.equal(embedding(model), start)
    assert not torch.equal(embedding(moved(model)), start)


class Products(TorchDispatchMode):
    """Notes the shape of every product of a linear layer."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.addmm.default:
            self.shapes.append(tuple(result.shape))
        return result


def test_switched_off_the_layers_compute_what_the_base_computes_so_that_no_device_rounds_otherwise():
    model = adapted(targets=("q", "v"))
    model.adapter.enable(False)
    with Products() as off:
        embedding(model)
    with Products() as base:
        embedding(attach(small_backbone(FAMILY), "decoder"))
    assert off.shapes == base.shapes
    assert base.shapes, "the check must be able to fail"


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"rank": 4}, 1.0),
        ({"rank": 2, "alpha": 3}, 1.5),
        ({"rank": 9, "alpha": 6, "rslora": True}, 2.0),
    ],
)
def test_the_update_is_alpha_over_rank_times_b_a_or_over_its_root(options, scale):
    model = moved(adapted(**options))
    a, b = (updates(model)[f"{LAYER}.lora_{matrix}.default.weight"].clone() for matrix in "AB")
    assert a.shape == (options["rank"], WIDTH)
    before = small_backbone(FAMILY).state_dict()[f"{LAYER}.weight"]
    after = model.merge().state_dict()[f"{LAYER}.weight"]
    torch.testing.assert_close(after, before + scale * b @ a)


def test_dora_learns_the_length_of_each_row():
    model = moved(adapted(dora=True))
    a, b, length = (
        updates(model)[f"{LAYER}.{name}.default.weight"].clone()
        for name in ("lora_A", "lora_B", "lora_magnitude_vector")
    )
    direction = small_backbone(FAMILY).state_dict()[f"{LAYER}.weight"] + b @ a
    expected = torch.stack(
        [
            value * row / math.dist(row, torch.zeros(WIDTH))
            for value, row in zip(length, direction, strict=True)
        ]
    )
    torch.testing.assert_close(model.merge().state_dict()[f"{LAYER}.weight"], expected)


def test_a_part_of_the_fused_layer_without_update_stays_as_it_is():
    before = small_backbone(FAMILY).state_dict()
    after = moved(adapted(targets=("q", "v"))).merge().state_dict()
    assert list(after) == list(before)
    changed = [
        not torch.equal(*parts)
        for parts in zip(*(state[f"{LAYER}.weight"].chunk(3) for state in (before, after)), strict=True)
    ]
    assert changed == [True, False, True]
    assert torch.equal(after[f"{LAYER}.bias"], before[f"{LAYER}.bias"])


def test_the_seed_decides_what_updates_begin_with():
    first, same, other = (updates(adapted(seed=seed)) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(*(state[f"{LAYER}.lora_A.default.weight"] for state in (first, other)))


@pytest.mark.parametrize("options", [{}, {"targets": ("q", "v"), "dora": True}])
def test_a_copy_of_a_model_can_be_switched_off_and_merged_by_itself(options):
    model = moved(adapted(**options))
    expected = embedding(model)
    copy = deepcopy(model)
    copy.adapter.enable(False)
    assert not torch.equal(embedding(copy), expected)
    copy.adapter.enable(True)
    copy.merge()
    assert torch.equal(embedding(model), expected)
    assert updates(model)
    assert not any("lora" in name for name in copy.backbone.state_dict())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("qkv,q,proj", "--targets qkv,q,proj: qkv is q, k and v in one: leave out qkv, or leave out q"),
        ("v,q,v", "--targets v,q,v: 'v' is named twice"),
        (
            "qvk",
            "--targets qvk: expected names, comma-separated, some of qkv, q, k, v, proj, mlp; "
            "did you mean 'qkv'?",
        ),
    ],
)
def test_targets_that_mean_nothing_are_refused(targets, message):
    with pytest.raises(SettingError) as caught:
        adapted(targets=targets)
    assert str(caught.value) == message


def test_nothing_but_this_method_imports_peft():
    source = Path(samfit.__file__).parent
    importers = [
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"^\s*(?:import|from) peft\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert importers == ["methods/lora.py"]
