"""Medical SAM Adapter against the published code: both encoders, and the whole model on SAM.

The published backbones differ from the pretrained ones. Where the difference does not matter, our backbones
are compared as they are, else the variant of them that imported checkpoints get.
"""

from dataclasses import replace

import pytest
import torch
from golden_models import GOLDEN_CARD, adapter_names, by_published_name, fill
from parity_support import assert_gradients, error, load_golden, recipe_state
from torch import Tensor, nn

from samfit.backbones import BACKBONES, card_of, efficient_sam, sam
from samfit.backbones.base import Backbone
from samfit.losses import loss_function
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.methods.adapter import Adapter
from samfit.step import prediction_step, training_step
from samfit.types import Batch, Prompts

VARIANT = "medical-sam-adapter"
PUBLISHED_CARD = replace(GOLDEN_CARD, variants=BACKBONES["sam-vit-b"].variants).variant(VARIANT)
EMBEDDING, GRADIENT = 2e-5, 1e-3
LOGITS, IOU, LOSS, WHOLE_GRADIENT = 1e-5, 2e-5, 5e-6, 2e-3


def published_sam(**architecture: object) -> Backbone:
    """Return the tiny SAM as the published code builds it but for `architecture`, with recipe weights."""
    numbers = PUBLISHED_CARD.architecture | architecture | {"pretrained_grid": 64}
    backbone = sam.build(replace(PUBLISHED_CARD, architecture=numbers), 128, "squeeze")
    shapes = backbone.state_dict()
    shapes["image_encoder.pos_embed"] = torch.empty(1, 64, 64, 64)
    names = backbone.published_names()
    for name in names:  # the MLPs of SAM's own two-way transformer are to have the same weights
        if name.startswith("mask_decoder.transformer."):
            names[name] = names[name].replace(".lin1.", ".layers.0.0.").replace(".lin2.", ".fc.")
    backbone.load_state_dict(backbone.fit_positions(recipe_state(names, shapes)))
    return backbone.eval()


def published_efficient_sam(**architecture: object) -> Backbone:
    """Return EfficientSAM-Ti of three blocks likewise."""
    card = replace(card_of("efficientsam-ti", VARIANT), depth=3)
    card = replace(card, architecture=card.architecture | architecture)
    backbone = efficient_sam.build(card, 256, card.fit)
    fill(backbone, backbone.published_names())
    return backbone.eval()


ENCODERS = {
    # golden file: the backbone, the output's name; with an architecture of our own where one is named
    "msa_sam_encoder_nopad": (
        lambda: published_sam(**GOLDEN_CARD.architecture | {"window": 4}),
        "out.embedding",
    ),
    "msa_sam_encoder": (published_sam, "out.embedding"),
    "msa_efficient_sam_encoder_strict": (
        lambda: published_efficient_sam(**card_of("efficientsam-ti").architecture),
        "out.y",
    ),
    "msa_efficient_sam_encoder": (published_efficient_sam, "out.y"),
}


def adapted(backbone: Backbone, classes: tuple[str, ...] = ("foreground",)) -> AdaptedModel:
    model = attach(backbone.requires_grad_(False), "medical-adapter", classes=classes)
    fill(model.adapter, adapter_names(model))
    return model


def normalised(images: Tensor) -> Tensor:
    """Normalise (B, 3, N, N), 0…255, as SAM and EfficientSAM both do."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (GOLDEN_CARD.mean, GOLDEN_CARD.std))
    return (images - mean) / std


@pytest.mark.parametrize("file", ENCODERS)
def test_an_encoder_equals_the_published_with_its_gradients(file):
    tensors, facts = load_golden(file)
    make, output = ENCODERS[file]
    model = adapted(make())
    embedding = model.encode(normalised(tensors["in.image"]))
    assert error(embedding, tensors[output]) < EMBEDDING
    (embedding * tensors["in.cotangent"]).sum().backward()
    names = adapter_names(model)
    gradients = {names[name]: parameter.grad for name, parameter in model.adapter.named_parameters()}
    if "grad_norm" in tensors:
        assert_gradients(gradients, tensors, facts.get("encoder", facts), GRADIENT)
    whole = [name for name in tensors if name.startswith("grad.")]
    assert whole
    for name in whole:
        assert error(gradients[name.removeprefix("grad.")], tensors[name]) < GRADIENT, name


def whole_model_batch(tensors: dict[str, Tensor], classes: int) -> Batch:
    mask = tensors["in.mask"].float()
    return Batch(
        frame=normalised(tensors["in.image"]),
        prompts=Prompts(tensors["in.points"], tensors["in.labels"].long(), has_box=False),
        extra=None,
        target=torch.cat([mask, mask.flip(-1)], 1)[:, :classes],
        valid=torch.ones_like(mask),
        weight=torch.full((len(mask),), 1 / len(mask)),
    )


@pytest.mark.parametrize("classes", [("disc",), ("disc", "cup")])
def test_a_training_step_of_the_whole_model_equals_the_published(classes):
    tensors, metadata = load_golden("msa_sam_encoder")
    case = f"full{len(classes)}"
    expected = {name.removeprefix(f"{case}."): tensor for name, tensor in tensors.items() if case in name}
    model = adapted(published_sam(), classes)
    batch = whole_model_batch(tensors, len(classes))
    assert (
        error(prediction_step(model, batch.frame, None, batch.prompts), expected["low_res_logits"]) < LOGITS
    )
    with torch.no_grad():
        decoded = model.backbone.decode(model.encode(batch.frame), batch.prompts)
    assert error(decoded.iou[:, : len(classes)], expected["iou_pred"]) < IOU
    result = training_step(model.train(), model.backbone.frame, batch, loss_function("bce-weighted"))
    assert abs(float(result.loss.detach()) - metadata[case]["loss"]) < LOSS
    result.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.trained().items()}
    assert_gradients(by_published_name(model, gradients), expected, metadata[case], WHOLE_GRADIENT)


def _no_adapter(model):
    model.adapter = Adapter()


def _no_relative_positions(model):
    for name, table in model.backbone.named_parameters():
        if name.startswith("image_encoder.") and ".rel_" in name:
            nn.init.zeros_(table)


def _no_absolute_positions(model):
    nn.init.zeros_(model.backbone.image_encoder.pos_embed)


def _norm_before_padding(model):
    for block in model.backbone.blocks:
        block.pads_before_norm = False


MUTATIONS = [
    *((file, change) for file in ENCODERS for change in (_no_adapter, _no_absolute_positions)),
    ("msa_sam_encoder_nopad", _no_relative_positions),
    ("msa_sam_encoder", _no_relative_positions),
    ("msa_efficient_sam_encoder", _no_relative_positions),
    ("msa_sam_encoder", _norm_before_padding),
]


@pytest.mark.parametrize(
    ("file", "change"), MUTATIONS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_a_mutation_moves_the_embedding(file, change):
    tensors, _ = load_golden(file)
    make, output = ENCODERS[file]
    model = adapted(make())
    change(model)
    with torch.no_grad():
        embedding = model.encode(normalised(tensors["in.image"]))
    assert error(embedding, tensors[output]) > 100 * EMBEDDING


def _gelu(backbone):
    for layer in backbone.mask_decoder.transformer.layers:
        layer.mlp.layers[0][1] = nn.GELU()
    return backbone


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: published_sam(two_way="sam"), id="two-way transformer of SAM"),
        pytest.param(lambda: _gelu(published_sam()), id="activation of EfficientSAM"),
    ],
)
def test_another_decoder_moves_the_logits(make):
    tensors, _ = load_golden("msa_sam_encoder")
    batch = whole_model_batch(tensors, 1)
    low = prediction_step(adapted(make()), batch.frame, None, batch.prompts)
    assert error(low, tensors["full1.low_res_logits"]) > 1000 * LOGITS
