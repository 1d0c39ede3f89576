"""The tiny SAM of the golden files, with the recipe's weights, alone and adapted."""

from collections.abc import Mapping

import torch
from parity_support import recipe_state
from torch import Tensor, nn

from samfit.backbones import BACKBONES
from samfit.backbones.card import BackboneCard
from samfit.backbones.sam import Sam, build
from samfit.engine.published import adapter_names
from samfit.losses import loss_function
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.high_frequency import high_frequency
from samfit.methods.sam_adapter import SamAdapter
from samfit.step import training_step
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
        "pads_before_norm": False,
        "two_way": "sam",
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
    weights=BACKBONES["sam-tiny"].weights,
)


def golden_sam() -> Sam:
    """Return the tiny SAM with the recipe's weights, in eval mode."""
    sam = build(GOLDEN_CARD, 128, "pad")
    fill(sam, sam.published_names())
    return sam.eval()


def fill(module: nn.Module, published: Mapping[str, str]) -> None:
    """Give a module the recipe's weights. `published`: its names to published ones."""
    module.load_state_dict(recipe_state(published, module.state_dict()))


def golden_cad() -> AdaptedModel:
    """Return the tiny SAM with CAD attached, all with the recipe's weights."""
    model = attach(golden_sam(), "cad")
    fill(model.adapter, adapter_names(model))
    return model


def golden_sam_adapter() -> AdaptedModel:
    """Return the tiny SAM with SAM-Adapter attached, a quarter as wide inside as published."""
    model = attach(golden_sam(), "sam-adapter")
    card = model.backbone.card
    model.adapter = SamAdapter(card.architecture["width"], card.patch, card.depth, hidden=8)
    fill(model.adapter, adapter_names(model))
    return model


def by_published_name(model: AdaptedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of an adapted model to their published names."""
    names = {f"adapter.{name}": published for name, published in adapter_names(model).items()}
    names |= {f"backbone.{name}": published for name, published in model.backbone.published_names().items()}
    return {names[name]: tensor for name, tensor in tensors.items()}


def of_case(tensors: Mapping[str, Tensor], case: str) -> dict[str, Tensor]:
    """Return the tensors of one case of a golden file, without its prefix."""
    return {
        key.removeprefix(f"{case}."): value for key, value in tensors.items() if key.startswith(f"{case}.")
    }


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
        extra=torch.cat([original, high_frequency(original)], 1) if model.row.reads_image else None,
        target=mask,
        valid=torch.ones_like(mask),
        weight=torch.full((len(images),), 1 / len(images)),
    )


def golden_step(
    model: AdaptedModel, tensors: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Run a training step on the batch of a golden file.

    Returns the loss, its parts and the gradients by published name.
    """
    batch = golden_batch(model, tensors)
    frame, function = model.backbone.frame, loss_function("bce-iou")
    height, width = batch.target.shape[-2:]
    model.train()
    if height == width:
        result = training_step(model, frame, batch, function)
        loss, parts = result.loss, result.parts
    else:  # the published loss is taken at the original size, which is no square here
        low = model(batch.frame, batch.extra, batch.prompts, batch.weight)
        logits = frame.to_original(low, frame.geometry(height, width))
        losses = function(logits, batch.target, batch.valid)
        parts = {name: (part * batch.weight).sum() for name, part in losses.items()}
        loss = torch.stack(list(parts.values())).sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.trained().items()}
    return (
        loss.detach(),
        {name: part.detach() for name, part in parts.items()},
        by_published_name(model, gradients),
    )
