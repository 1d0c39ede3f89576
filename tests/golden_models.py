"""The tiny SAM of the golden files, with the recipe's weights, alone and with CAD's adapter."""

import torch
from parity_support import recipe_state
from torch import Tensor, nn

from samfit.backbones import BACKBONES
from samfit.backbones.card import BackboneCard
from samfit.backbones.sam import Sam, build
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.cad import ConvAdapter
from samfit.methods.high_frequency import high_frequency
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Batch, Prompts

GOLDEN_CARD = BackboneCard(
    name="golden-tiny",
    summary="the tiny SAM that the golden numbers were computed with",
    module="sam",
    architecture={
        "width": 64,
        "heads": 4,
        "mlp_width": 256,
        "window": 3,
        "global_blocks": (1, 3),
        "pretrained_grid": 8,
        "decoder_heads": 8,
        "decoder_mlp_width": 2048,
    },
    paper="",
    image_size=128,
    patch=16,
    depth=4,
    embedding_width=256,
    mean=BACKBONES["sam-vit-b"].mean,
    std=BACKBONES["sam-vit-b"].std,
    fit="pad",
    resampling="pillow",
    upsampling="bilinear",
    negative_clicks=True,
    prompt_slots=None,
    weights=None,
)


def golden_sam() -> Sam:
    """Return the tiny SAM with the recipe's weights, in eval mode."""
    sam = build(GOLDEN_CARD, 128, "pad")
    sam.load_state_dict(recipe_state(sam.published_names(), sam.state_dict()))
    return sam.eval()


def fill(module: nn.Module, prefix: str = "") -> None:
    """Give a module the recipe's weights; its own names are the published ones behind `prefix`."""
    state = module.state_dict()
    module.load_state_dict(recipe_state({name: prefix + name for name in state}, state))


def golden_cad() -> AdaptedModel:
    """Return the tiny SAM with CAD attached, all with the recipe's weights."""
    model = attach(golden_sam(), "cad")
    assert isinstance(model.adapter, ConvAdapter)
    fill(model.adapter, "conv_adapter.")
    return model


def published_name(model: AdaptedModel, name: str) -> str:
    """Return the published name of one of an adapted model's tensors."""
    if name.startswith("adapter."):
        return name.replace("adapter.", "conv_adapter.", 1)
    return model.backbone.published_names()[name.removeprefix("backbone.")]


def by_published_name(model: AdaptedModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of an adapted model to their published names."""
    return {published_name(model, name): tensor for name, tensor in tensors.items()}


def golden_batch(model: AdaptedModel, tensors: dict[str, Tensor], scale: float = 1.0) -> Batch:
    """Return the batch of a golden file, with the adapter at the images' own size, as published.

    The prompt is the whole image as a box, its corners multiplied by `scale`.
    """
    images = tensors["in.image"]
    original = images.permute(0, 3, 1, 2).float()
    mask = tensors["in.mask"][:, None].float()
    frame = model.backbone.frame
    height, width = images.shape[1:3]
    box = frame.points_to_model(
        torch.tensor([[0.0, 0.0], [width * scale, height * scale]]), frame.geometry(height, width)
    )
    labels = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]).expand(len(images), -1)
    return Batch(
        frame=torch.stack([frame.to_model(image.numpy()) for image in images]),
        prompts=Prompts(box.expand(len(images), -1, -1), labels, has_box=True),
        extra=torch.cat([original, high_frequency(original)], 1),
        target=mask,
        valid=torch.ones_like(mask),
        weight=torch.full((len(images),), 1 / len(images)),
    )
