"""Preprocessing and the way back, against segment-anything's own."""

import pytest
import torch
from parity_support import error, load_golden

from samfit.backbones import BACKBONES
from samfit.frame import Frame

SHAPES = ["150x100", "100x150", "33x47", "640x480", "300x31", "128x128", "129x64"]
CARD = BACKBONES["sam-vit-b"]
FRAME = Frame(128, CARD.mean, CARD.std)


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = load_golden("preprocess")
    assert sorted(metadata["cases"]) == sorted(SHAPES)
    return tensors, metadata


@pytest.mark.parametrize("shape", SHAPES)
def test_the_resized_image_is_equal_to_the_last_bit(golden, shape):
    tensors, _ = golden
    resized = FRAME.resize(tensors[f"{shape}.in.image"].numpy())
    assert (torch.from_numpy(resized.copy()) == tensors[f"{shape}.out.resized"]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_frame_is_normalised_and_padded_alike(golden, shape):
    tensors, metadata = golden
    frame = FRAME.to_model(tensors[f"{shape}.in.image"].numpy())
    assert error(frame[0], tensors[f"{shape}.out.padded_channel0"]) < 1e-3
    sums = torch.tensor(metadata["cases"][shape]["sum_padded"])
    assert error(frame.double().sum((1, 2)), sums) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["coords", "boxes"])
def test_points_and_boxes_are_mapped_alike(golden, shape, kind):
    tensors, _ = golden
    geometry = FRAME.geometry(*tensors[f"{shape}.in.image"].shape[:2])
    expected = tensors[f"{shape}.out.{kind}"]
    found = FRAME.points_to_model(tensors[f"{shape}.in.{kind}"].reshape(-1, 2), geometry)
    assert (found.reshape(expected.shape) - expected).abs().max() < 1e-12


def _way_back(tensors, metadata, shape, frame=FRAME):
    geometry = frame.geometry(*tensors[f"{shape}.in.image"].shape[:2])
    stride = metadata["cases"][shape]["post_stride"]
    return frame.to_original(tensors[f"{shape}.in.low_res"], geometry)[..., ::stride, ::stride]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_return_to_the_original_size_alike(golden, shape):
    tensors, metadata = golden
    assert error(_way_back(tensors, metadata, shape), tensors[f"{shape}.out.postprocessed"]) < 1e-3


def test_a_way_back_that_forgets_the_padding_is_caught(golden):
    tensors, metadata = golden
    squeezed = Frame(128, CARD.mean, CARD.std, fit="squeeze")
    found = _way_back(tensors, metadata, "150x100", squeezed)
    assert error(found, tensors["150x100.out.postprocessed"]) > 1e-2
