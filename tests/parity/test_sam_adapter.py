"""SAM-Adapter in the encoder and the whole model through a training step, against the published code."""

import pytest
import torch
import torch.nn.functional as F
from golden_models import golden_batch, golden_sam_adapter, golden_step, of_case
from parity_support import assert_gradients, error, load_golden

from samfit.backbones import card_of
from samfit.engine.published import adapter_names
from samfit.methods.adapter import Adapter
from samfit.methods.sam_adapter import high_frequency_patches


@pytest.fixture(scope="module")
def encoder():
    return load_golden("sam_adapter_encoder")


@pytest.fixture(scope="module")
def images():
    tensors, _ = load_golden("cad_sam_tiny")
    return tensors


@pytest.mark.parametrize("size", ["64x64", "64x96", "128x128"])
def test_the_patches_equal_the_published(size):
    tensors, _ = load_golden("high_frequency")
    card = card_of("sam-vit-b")
    mean, std = (torch.tensor(value)[:, None, None] for value in (card.mean, card.std))
    found = high_frequency_patches((tensors[f"patches.in.{size}"] - mean) / std, 16)
    assert error(found, tensors[f"patches.out.{size}"]) < 2e-5


def test_the_encoder_equals_the_published_with_its_gradients(encoder):
    tensors, facts = encoder
    model = golden_sam_adapter()
    embedding = model.encode(tensors["in.x"])
    assert error(embedding, tensors["out.y"]) < 2e-5
    (embedding * tensors["in.cotangent"]).sum().backward()
    names = adapter_names(model)
    gradients = {names[name]: parameter.grad for name, parameter in model.adapter.named_parameters()}
    assert all(f"grad.{name}" in tensors for name in gradients)
    assert_gradients(gradients, tensors, facts, 1e-3)


@pytest.mark.parametrize("case", ["A", "B"])
def test_every_station_gives_the_published_numbers(encoder, images, case):
    expected = of_case(encoder[0], case)
    model = golden_sam_adapter()
    batch = golden_batch(model, of_case(images, case))
    with torch.no_grad():
        embedding = model.encode(batch.frame)
        decoded = model.backbone.decode(embedding, batch.prompts)
        low = model(batch.frame, batch.extra, batch.prompts)
    assert error(embedding, expected["out.embedding"]) < 2e-5
    assert error(decoded.iou[:, :1], expected["out.iou_pred"]) < 2e-5
    assert error(low, expected["out.low_res_logits"]) < 1e-5


@pytest.mark.parametrize("case", ["A", "B"])
def test_a_training_step_equals_the_published(encoder, images, case):
    tensors, metadata = encoder
    loss, parts, gradients = golden_step(golden_sam_adapter(), of_case(images, case))
    scalars = metadata[f"{case}.train.scalars"]
    assert abs(float(loss) - scalars["loss"]) < 5e-6
    assert abs(float(parts["bce"]) - scalars["bce"]) < 5e-6
    assert abs(float(parts["iou"]) - scalars["iou_loss"]) < 5e-6
    assert_gradients(gradients, of_case(tensors, case), metadata[case], 2e-3)


def _no_adapter(model):
    model.adapter = Adapter()


def _patches_by_row_column_channel(model):
    weight = model.adapter.patches.weight  # reordering its columns is reordering the patch's values
    weight.data = weight.data.unflatten(1, (16, 16, 3)).permute(0, 3, 1, 2).flatten(1)


def _patches_by_column(model):
    weight = model.adapter.patches.weight
    weight.data = weight.data.unflatten(1, (3, 16, 16)).transpose(2, 3).flatten(1)


def _no_high_frequency(model):
    model.adapter.patches.weight.data.zero_()


def _no_tokens(model):
    model.adapter.tokens.weight.data.zero_()


def _nothing_before_the_first_block(model):
    _without(model.adapter, 0)


def _nothing_after_the_last_block(model):
    _without(model.adapter, 4)


def _without(adapter, place):
    as_published = adapter.addition
    adapter.addition = lambda index, shared: as_published(index, shared) * (index != place)


def _relu(model):
    adapter = model.adapter
    adapter.addition = lambda index, shared: adapter.up(F.relu(adapter.down[str(index)](shared)))


def _one_block_late(model):
    adapter = model.adapter
    as_published = adapter.addition
    adapter.addition = lambda index, shared: as_published(max(index - 1, 0), shared)


def _no_relative_positions(model):
    for block in model.backbone.blocks:
        block.attn.use_rel_pos = False


MUTATIONS = {
    # change: by how many tolerances the encoder's output must move
    _no_adapter: 10000,
    _patches_by_row_column_channel: 1000,
    _patches_by_column: 1000,
    _no_high_frequency: 1000,
    _no_tokens: 1000,
    _nothing_before_the_first_block: 1000,
    _nothing_after_the_last_block: 1000,
    _relu: 1000,
    _one_block_late: 1000,
    _no_relative_positions: 1000,
}


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_a_mutation_moves_the_embedding(encoder, change):
    tensors, _ = encoder
    model = golden_sam_adapter()
    change(model)
    with torch.no_grad():
        embedding = model.encode(tensors["in.x"])
    assert error(embedding, tensors["out.y"]) > MUTATIONS[change] * 2e-5
