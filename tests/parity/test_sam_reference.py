"""SAM on transformers' modules, against segment-anything: every kind of prompt."""

import numpy as np
import pytest
import torch
from golden_models import golden_sam
from parity_support import error, load_golden

from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts

KINDS = [
    "point",
    "two_points",
    "box",
    "point_and_box",
    "three_boxes",
    "mask",
    "point_and_mask",
    "box_and_mask",
]


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = load_golden("sam_reference")
    kinds = {key.split(".")[1] for key in tensors if key.endswith(".masks")}
    assert kinds == set(KINDS)
    return tensors, metadata


@pytest.fixture(scope="module")
def sam():
    return golden_sam()


@pytest.fixture(scope="module")
def embedding(sam, golden):
    with torch.no_grad():
        return sam.encode(sam.frame.to_model(golden[0]["in.image"].numpy())[None])


def make_prompts(sam, tensors, kind, move=0.0):
    """The golden prompts in pixels of the model frame; one row a prompt."""
    geometry = sam.frame.geometry(*tensors["in.image"].shape[:2])
    points, labels = torch.empty(1, 0, 2), torch.empty(1, 0, dtype=torch.int64)
    if "point" in kind:
        count = 2 if "two" in kind else 1
        points, labels = tensors["in.points"][:, :count], tensors["in.labels"][:, :count]
    has_box = "box" in kind
    if has_box:
        corners = tensors["in.three_boxes" if "three" in kind else "in.box"].reshape(-1, 2, 2) + move
        sides = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]).expand(len(corners), -1)
        points = torch.cat([points.expand(len(corners), -1, -1), corners], 1)
        labels = torch.cat([labels.expand(len(corners), -1), sides], 1)
    mask = tensors["in.mask_input"] if "mask" in kind else None
    return Prompts(sam.frame.points_to_model(points.float(), geometry), labels, has_box, mask)


def decode(sam, embedding, prompts, multimask):
    """Return logits and IoU estimates of the masks that the published code returns."""
    with torch.no_grad():
        decoded = sam.decode(embedding.expand(len(prompts.points), -1, -1, -1), prompts)
    masks = slice(1, None) if multimask else slice(0, 1)
    return decoded.logits[:, masks], decoded.iou[:, masks]


def test_the_embedding_equals_the_published(golden, embedding):
    assert error(embedding, golden[0]["out.embedding"]) < 2e-5


@pytest.mark.parametrize("multimask", [True, False], ids=["multi", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_gives_the_published_masks(sam, golden, embedding, kind, multimask):
    tensors, metadata = golden
    name = f"out.{kind}.{'multi' if multimask else 'single'}"
    logits, iou = decode(sam, embedding, make_prompts(sam, tensors, kind), multimask)
    low = tensors[f"{name}.low_res_logits"]
    assert error(logits, low) < (1e-3 if low.dtype == torch.float16 else 1e-5)
    assert error(iou, tensors[f"{name}.iou"]) < 2e-5
    height, width = metadata["image"]
    full = sam.frame.to_original(logits, sam.frame.geometry(height, width))
    if f"{name}.logits_original" in tensors:
        assert error(full, tensors[f"{name}.logits_original"]) < 1e-3
    count = full.numel()
    expected = np.unpackbits(tensors[f"{name}.masks"].numpy())[:count].astype(bool)
    assert ((full > 0).flatten().numpy() != expected).sum() <= 3


def _without_relative_positions(sam):
    for block in sam.blocks:
        block.attn.use_rel_pos = False


def _without_absolute_positions(sam):
    sam.image_encoder.pos_embed.data.zero_()


@pytest.mark.parametrize("change", [_without_relative_positions, _without_absolute_positions])
def test_an_encoder_without_positions_is_caught(golden, change):
    sam = golden_sam()
    change(sam)
    with torch.no_grad():
        found = sam.encode(sam.frame.to_model(golden[0]["in.image"].numpy())[None])
    assert error(found, golden[0]["out.embedding"]) > 100 * 2e-5


@pytest.mark.parametrize("move", [0.5, 10.0])
def test_another_box_is_caught(sam, golden, embedding, move):
    prompts = make_prompts(sam, golden[0], "box", move)
    found = decode(sam, embedding, prompts, False)[0]
    assert error(found, golden[0]["out.box.single.low_res_logits"]) > 100 * 1e-5


def test_the_decoder_with_the_eps_of_transformers_is_caught(golden, embedding):
    sam = golden_sam()
    for layer in sam.mask_decoder.transformer.layers:
        for index in range(1, 5):
            getattr(layer, f"layer_norm{index}").eps = 1e-6
    found = decode(sam, embedding, make_prompts(sam, golden[0], "box"), False)[0]
    assert error(found, golden[0]["out.box.single.low_res_logits"]) > 2 * 1e-5
