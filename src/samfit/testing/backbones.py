"""Small backbones of every family, with random weights: what a method is tried on."""

from dataclasses import replace
from importlib import import_module

from samfit.backbones import BACKBONES
from samfit.backbones.base import Backbone
from samfit.backbones.card import BackboneCard
from samfit.backbones.initial import draw_weights

SMALL: dict[str, BackboneCard] = {
    "sam-tiny": BACKBONES["sam-tiny"],
    "sam-vit-b": replace(
        BACKBONES["sam-vit-b"],
        architecture=BACKBONES["sam-vit-b"].architecture
        | {"width": 32, "heads": 2, "mlp_width": 64, "global_blocks": (1,), "decoder_mlp_width": 32},
        depth=2,
        embedding_width=32,
        image_size=256,
    ),
    "efficientsam-ti": replace(
        BACKBONES["efficientsam-ti"],
        architecture=BACKBONES["efficientsam-ti"].architecture | {"width": 32, "heads": 2, "mlp_width": 64},
        depth=2,
        embedding_width=32,
        image_size=128,
    ),
}
"""Family to the card of its small member: the architecture of the table's row with smaller numbers."""


def small_backbone(family: str, *, image_size: int | None = None, seed: int = 0) -> Backbone:
    """Build the small member of a family with random weights; equal arguments give equal weights.

    `image_size`: side of the model frame, a multiple of the card's patch; None for the card's own.
    """
    card = SMALL[family]
    backbone = import_module(f"samfit.backbones.{card.module}").build(
        card, image_size or card.image_size, card.fit
    )
    draw_weights(backbone, seed)
    backbone.weights_hash = f"random {seed}"
    return backbone.eval().requires_grad_(False)
