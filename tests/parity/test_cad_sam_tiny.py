"""The whole CAD model through a training step, against the published trainer."""

import pytest
import torch
from golden_models import by_published_name, golden_batch, golden_cad, golden_step, of_case
from parity_support import assert_gradients, error, load_golden

from samfit.losses import loss_function
from samfit.methods.high_frequency import high_frequency
from samfit.step import prediction_step, training_step


@pytest.fixture(scope="module")
def golden():
    return load_golden("cad_sam_tiny")


@pytest.fixture(scope="module", params=["A", "B"])
def step(request, golden):
    model = golden_cad()
    loss, parts, gradients = golden_step(model, of_case(golden[0], request.param))
    return request.param, model, loss, parts, gradients


@pytest.mark.parametrize("case", ["A", "B"])
def test_preparation_gives_the_published_inputs(golden, case):
    tensors, _ = golden
    frame = golden_cad().backbone.frame
    for index, image in enumerate(tensors[f"{case}.in.image"]):
        resized = torch.from_numpy(frame.resize(image.numpy()).copy()).permute(2, 0, 1)
        assert error(resized, tensors[f"{case}.in.resized"][index]) < 1e-3
    images = tensors[f"{case}.in.image"].permute(0, 3, 1, 2).float()
    assert error(high_frequency(images), tensors[f"{case}.in.high_frequency"]) < 1e-3


@pytest.mark.parametrize("case", ["A", "B"])
def test_the_published_prompt_is_the_whole_image(golden, case):
    boxes = golden[0][f"{case}.in.boxes"]
    found = golden_batch(golden_cad(), of_case(golden[0], case)).prompts.points.reshape(boxes.shape)
    assert (found == boxes).all()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", ["A", "B"])
def test_every_station_gives_the_published_numbers(golden, case, mode):
    tensors, _ = golden
    model = golden_cad()
    batch = golden_batch(model, of_case(tensors, case))
    model.train(mode == "train")
    with torch.no_grad():
        embedding = model.encode(batch.frame)
        features = model.adapter.features(batch.extra)
        decoded = model.backbone.decode(embedding + 0.1 * features, batch.prompts)
        logits = decoded.logits[:, :1]
        height, width = batch.target.shape[-2:]
        frame = model.backbone.frame
        masks = frame.to_original(logits, frame.geometry(height, width))[:, 0].sigmoid()
    assert error(embedding, tensors[f"{case}.out.embedding"]) < 2e-5
    assert error(features, tensors[f"{case}.out.{mode}.adapter_features"]) < 2e-5
    assert error(logits, tensors[f"{case}.out.{mode}.low_res_logits"]) < 1e-5
    assert error(decoded.iou[:, :1], tensors[f"{case}.out.{mode}.iou_pred"]) < 2e-5
    expected = tensors[f"{case}.out.{mode}.masks"]
    assert error(masks, expected) < (1e-3 if expected.dtype == torch.float16 else 1e-5)


def test_the_model_as_a_whole_gives_the_stations_logits(golden):
    tensors, _ = golden
    model = golden_cad().train()
    batch = golden_batch(model, of_case(tensors, "A"))
    low = prediction_step(model, batch.frame, batch.extra, batch.prompts)
    assert error(low, tensors["A.out.train.low_res_logits"]) < 1e-5


def test_the_loss_equals_the_published(golden, step):
    case, _, loss, parts, _ = step
    scalars = golden[1]["cases"][case]["train.scalars"]
    assert abs(float(loss) - scalars["loss"]) < 5e-6
    assert abs(float(parts["bce"]) - scalars["bce"]) < 5e-6
    assert abs(float(parts["iou"]) - scalars["iou_loss"]) < 5e-6


def test_the_gradients_equal_the_published(golden, step):
    tensors, metadata = golden
    case, _, _, _, gradients = step
    assert_gradients(gradients, of_case(tensors, case), metadata["cases"][case], 2e-3)


def test_what_has_no_gradient_as_published_is_not_trained(golden, step):
    case, model, _, _, gradients = step
    untouched = set(golden[1]["cases"][case]["params_without_gradient"])
    assert untouched
    assert not untouched & set(gradients)
    assert untouched <= set(by_published_name(model, dict(model.named_parameters())))


def test_the_statistics_after_the_step_equal_the_published(golden, step):
    case, model, *_ = step
    prefix = f"{case}.buffer_after.conv_adapter."
    expected = {key.removeprefix(prefix): value for key, value in golden[0].items() if key.startswith(prefix)}
    assert len(expected) == 6
    for name, value in expected.items():
        assert error(model.adapter.get_buffer(name), value) < 2e-5, name


def _no_adapter(model):
    model.adapter.scale = 0.0


def _full_scale(model):
    model.adapter.scale = 1.0


def _no_relative_positions(model):
    for block in model.backbone.blocks:
        block.attn.use_rel_pos = False


def _no_absolute_positions(model):
    model.backbone.image_encoder.pos_embed.data.zero_()


def _other_window(model):
    for block in model.backbone.blocks:
        if block.window_size:
            block.window_size = 4
            block.attn.use_rel_pos = True


def _eps_of_transformers(model):
    for layer in model.backbone.mask_decoder.transformer.layers:
        for index in range(1, 5):
            getattr(layer, f"layer_norm{index}").eps = 1e-6


MUTATIONS = {
    # change: by how many tolerances the logits must move
    _no_adapter: 1000,
    _full_scale: 10000,
    _no_relative_positions: 1000,
    _no_absolute_positions: 1000,
    _other_window: 1000,
    _eps_of_transformers: 2,
}


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_a_mutation_moves_the_logits(golden, change):
    tensors, _ = golden
    model = golden_cad().train()
    change(model)
    batch = golden_batch(model, of_case(tensors, "A"))
    low = prediction_step(model, batch.frame, batch.extra, batch.prompts)
    assert error(low, tensors["A.out.train.low_res_logits"]) > MUTATIONS[change] * 1e-5


def test_another_box_moves_the_logits(golden):
    tensors, _ = golden
    model = golden_cad().train()
    batch = golden_batch(model, of_case(tensors, "A"), scale=0.75)
    low = prediction_step(model, batch.frame, batch.extra, batch.prompts)
    assert error(low, tensors["A.out.train.low_res_logits"]) > 1000 * 1e-5


def test_without_the_high_frequency_image_loss_and_gradient_move(golden):
    tensors, metadata = golden
    model = golden_cad().train()
    batch = golden_batch(model, of_case(tensors, "A"))
    assert batch.extra is not None
    batch.extra[:, 3:] = 0
    result = training_step(model, model.backbone.frame, batch, loss_function("bce-iou"))
    result.loss.backward()
    assert abs(float(result.loss.detach()) - metadata["cases"]["A"]["train.scalars"]["loss"]) > 50 * 5e-6
    name = "conv_block1.bn.weight"
    found = model.adapter.get_parameter(name).grad
    assert error(found, tensors[f"A.grad.conv_adapter.{name}"]) > 50 * 2e-3
