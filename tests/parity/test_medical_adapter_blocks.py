"""One block of Medical SAM Adapter against the published module: output and every gradient.

The published block differs from the pretrained ones. Where the difference does not matter, SAM's own block is
compared, else the block of the variant that imported checkpoints get.
"""

from dataclasses import replace

import pytest
import torch
from golden_models import GOLDEN_CARD
from parity_support import error, load_golden, recipe_state
from torch import Tensor, nn

from samfit.backbones import BACKBONES, card_of, efficient_sam, sam
from samfit.methods.medical_adapter import MedicalBlock

VARIANT = "medical-sam-adapter"
NUMBERS = {"width": 32, "heads": 4, "mlp_width": 128}
WINDOW = 4
OUT, GRADIENT = 2e-5, 1e-4
TO_PUBLISHED = (
    ("adapter.space.fc", "Space_Adapter.D_fc"),
    ("adapter.mlp.fc", "MLP_Adapter.D_fc"),
    ("block.", ""),
    ("layer_norm", "norm"),
    ("rel_pos_", "rel_"),
    ("mlp.fc", "mlp.lin"),
)


def of_sam(window: int, variant: str | None = None) -> nn.Module:
    numbers = NUMBERS | {"window": window, "global_blocks": () if window else (0,)}
    card = replace(GOLDEN_CARD, depth=1, architecture=GOLDEN_CARD.architecture | numbers)
    card = replace(card, variants=BACKBONES["sam-vit-b"].variants).variant(variant)
    return sam.build(card, card.image_size, card.fit).blocks[0]


def of_efficient_sam(variant: str) -> nn.Module:
    card = card_of("efficientsam-ti", variant)
    card = replace(card, depth=1, architecture=card.architecture | NUMBERS)
    return efficient_sam.build(card, 64, card.fit).blocks[0]


CASES = {
    # golden file and its part: our block
    ("msa_block_global", ""): lambda: of_sam(0),
    ("msa_block_window_nopad", ""): lambda: of_sam(WINDOW),
    ("msa_block_window", ""): lambda: of_sam(WINDOW, VARIANT),
    ("msa_block_global", "eps5."): lambda: of_efficient_sam(VARIANT),
}


class Adapted(nn.Module):
    """A block and what the method adds to it, with the recipe's weights."""

    def __init__(self, block: nn.Module, tensors: dict[str, Tensor]):
        super().__init__()
        self.block = block
        self.adapter = MedicalBlock(NUMBERS["width"])
        for name, _ in list(block.attn.named_parameters()):
            if name.startswith("rel_"):  # the golden grid is no square
                golden = tensors[f"grad.attn.{name.replace('rel_pos_', 'rel_')}"]
                setattr(block.attn, name, nn.Parameter(torch.empty_like(golden)))
        self.load_state_dict(recipe_state(self.published_names(), self.state_dict()))

    def published_names(self) -> dict[str, str]:
        names = {name: name for name in self.state_dict()}
        for ours, theirs in TO_PUBLISHED:
            names = {name: published.replace(ours, theirs) for name, published in names.items()}
        return names

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2) if isinstance(self.block, efficient_sam.EncoderBlock) else x
        return self.block(tokens, self.adapter).reshape(x.shape)


def golden_part(file: str, part: str) -> dict[str, Tensor]:
    tensors, _ = load_golden(file)
    return {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}


@pytest.mark.parametrize("case", CASES, ids="".join)
def test_output_and_gradients_equal_the_published(case):
    tensors = golden_part(*case)
    model = Adapted(CASES[case](), tensors)
    x = tensors["in.x"].requires_grad_()
    output = model(x)
    (output * tensors["in.cotangent"]).sum().backward()
    assert error(output, tensors["out.y"]) < OUT
    assert error(x.grad, tensors["grad_input"]) < GRADIENT
    names = model.published_names()
    assert {f"grad.{name}" for name in names.values()} == {
        name for name in tensors if name.startswith("grad.")
    }
    for name, parameter in model.named_parameters():
        assert error(parameter.grad, tensors[f"grad.{names[name]}"]) < GRADIENT, name


def test_attention_with_relative_positions_is_the_same_in_both_families():
    tensors = golden_part("msa_block_global", "")
    with torch.no_grad():
        assert error(Adapted(of_efficient_sam(VARIANT), tensors)(tensors["in.x"]), tensors["out.y"]) < OUT


def _no_space_adapter(model):
    nn.init.zeros_(model.adapter.space.fc2.weight)
    nn.init.zeros_(model.adapter.space.fc2.bias)


def _no_mlp_adapter(model):
    model.adapter.scale = 0.0


def _full_scale(model):
    model.adapter.scale = 1.0


def _no_relative_positions(model):
    for name, table in model.block.attn.named_parameters():
        if name.startswith("rel_"):
            nn.init.zeros_(table)


def _norm_before_padding(model):
    model.block.pads_before_norm = False


def _other_eps(model):
    model.block.norm1.eps = model.block.norm2.eps = 1e-6


EVERYWHERE = (_no_space_adapter, _no_mlp_adapter, _full_scale, _no_relative_positions)


@pytest.mark.parametrize(
    ("case", "change"),
    [(case, change) for case in CASES for change in EVERYWHERE]
    + [(("msa_block_window", ""), _norm_before_padding), (("msa_block_global", "eps5."), _other_eps)],
    ids=lambda value: value.__name__ if callable(value) else "".join(value),
)
def test_a_mutation_is_caught(case, change):
    tensors = golden_part(*case)
    model = Adapted(CASES[case](), tensors)
    with torch.no_grad():
        assert error(model(tensors["in.x"]), tensors["out.y"]) < OUT
        change(model)
        assert error(model(tensors["in.x"]), tensors["out.y"]) > 100 * OUT
