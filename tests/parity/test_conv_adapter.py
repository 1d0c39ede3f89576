"""CAD's convolutional adapter, against the published module: output, gradients, statistics."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_models import fill
from parity_support import error, load_golden

from samfit.methods.cad import ConvAdapter
from samfit.methods.high_frequency import high_frequency

FILES = {
    # name: grid, dtype, tolerance of the output, of gradients
    "conv_adapter": (8, torch.float32, 2e-5, 1e-4),
    "conv_adapter_float64": (4, torch.float64, 1e-10, 1e-9),
    "conv_adapter_512": (64, torch.float32, 1e-3, 2e-3),
}


def _inputs(name, tensors, dtype):
    if name != "conv_adapter_512":
        return tensors["in.x"].to(dtype), tensors["in.cotangent"].to(dtype)
    image = tensors["in.image_uint8"].float()
    seed = zlib.crc32(b"cotangent.conv_adapter_512.safetensors")
    normal = np.random.Generator(np.random.PCG64(seed)).standard_normal((1, 256, 64, 64))
    return torch.cat([image, high_frequency(image)], 1), torch.from_numpy(normal.astype(np.float32))


@pytest.fixture(scope="module", params=FILES)
def run(request):
    """One training step and one evaluation of the adapter, and the golden numbers."""
    name = request.param
    grid, dtype, out_tolerance, grad_tolerance = FILES[name]
    tensors, metadata = load_golden(name)
    adapter = ConvAdapter(256, grid)
    fill(adapter, {name: name for name in adapter.state_dict()})
    adapter.to(dtype)
    x, cotangent = _inputs(name, tensors, dtype)
    trained = adapter.train().features(x)
    (trained * cotangent).sum().backward()
    buffers = {key: value.clone() for key, value in adapter.named_buffers()}
    with torch.no_grad():
        evaluated = adapter.eval().features(x)
    return {
        "tensors": tensors,
        "metadata": metadata,
        "train": trained.detach(),
        "eval_after_step": evaluated,
        "gradients": {key: parameter.grad for key, parameter in adapter.named_parameters()},
        "buffers": buffers,
        "out_tolerance": out_tolerance,
        "grad_tolerance": grad_tolerance,
    }


@pytest.mark.parametrize("mode", ["train", "eval_after_step"])
def test_the_output_equals_the_published(run, mode):
    expected = run["tensors"][f"out.{mode}"]
    stride = run[mode].shape[1] // expected.shape[1]
    assert error(run[mode][:, ::stride], expected) < run["out_tolerance"]


def test_the_gradients_equal_the_published(run):
    tensors, noise = run["tensors"], run["metadata"]["grad_noise_only"]
    names = run["metadata"]["grad_names"]
    assert set(names) == set(run["gradients"])
    for index, name in enumerate(names):
        if name in noise:
            continue
        found = run["gradients"][name]
        assert error(found.norm(), tensors["grad_norm"][index]) < run["grad_tolerance"], name
        if f"grad.{name}" in tensors:
            assert error(found, tensors[f"grad.{name}"]) < run["grad_tolerance"], name
        else:
            expected = tensors[f"grad_sub.{name}"].double() * tensors.get(f"grad_sub_scale.{name}", 1.0)
            stride = found.shape[0] // expected.shape[0]
            tolerance = max(run["grad_tolerance"], run["metadata"]["tolerance"].get("grad_sub", 0))
            assert error(found[::stride, ::stride], expected) < tolerance, name


def test_the_running_statistics_equal_the_published(run):
    for name, found in run["buffers"].items():
        expected = run["tensors"][f"buffer_after.{name}"]
        if name.endswith("num_batches_tracked"):
            assert found == expected
        else:
            assert error(found, expected) < 2e-5, name


def _mutated(change, name):
    """Return the error of the plain modules' training output after a change, in tolerances."""
    grid, dtype, tolerance, _ = FILES[name]
    tensors, _ = load_golden(name)
    adapter = ConvAdapter(256, grid)
    fill(adapter, {name: name for name in adapter.state_dict()})
    x, _ = _inputs(name, tensors, dtype)
    x = x.clone()
    change(adapter, x)
    with torch.no_grad():
        output = adapter.to(dtype).train().plain_features(x)
    expected = tensors["out.train"]
    return error(output[:, :: output.shape[1] // expected.shape[1]], expected) / tolerance


def _dilation_one(adapter, x):
    for block in (adapter.conv_block1, adapter.conv_block2, adapter.conv_block3):
        block.conv.dilation, block.conv.padding = (1, 1), (1, 1)


def _no_high_frequency(adapter, x):
    x[:, 3:] = 0


def _no_shortcut(adapter, x):
    def forward(x, weight):
        block = adapter.conv_block1
        return F.avg_pool2d(F.leaky_relu(block.bn(block.conv(x)), 0.1), 2)

    adapter.conv_block1.forward = forward


@pytest.mark.parametrize("change", [_dilation_one, _no_high_frequency, _no_shortcut])
@pytest.mark.parametrize("name", ["conv_adapter", "conv_adapter_float64"])
def test_a_mutation_is_caught(name, change):
    assert _mutated(lambda adapter, x: None, name) < 1
    assert _mutated(change, name) > 100


@pytest.mark.slow
def test_a_mutation_at_the_published_size_is_caught():
    assert _mutated(_no_high_frequency, "conv_adapter_512") > 10
