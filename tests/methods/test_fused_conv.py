"""The convolutional adapter in little memory, held to the plain modules."""

import copy

import pytest
import torch
from fused_conv_support import COUNTS, WORLD, filled_adapter, measured, run, share_of
from memory_support import kept_bytes
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode

from samfit.backbones.chunks import Limits, limited
from samfit.methods import fused_conv
from samfit.methods.cad import ConvAdapter
from samfit.methods.fused_conv.parts import parts
from samfit.testing.held import peak_bytes


def image(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 255


def step(adapter: ConvAdapter, features: Tensor) -> dict[str, Tensor]:
    """Go back from the features; return them and all gradients."""
    generator = torch.Generator().manual_seed(2)
    adapter.zero_grad()
    features.backward(
        torch.randn(features.shape, generator=generator, dtype=torch.float64).to(features.dtype)
    )
    gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"features": features.detach(), **gradients}


def pooled(adapter: ConvAdapter, x: Tensor, pixels: int) -> Tensor:
    """Run the fused blocks in parts of a size."""
    blocks = (adapter.conv_block1, adapter.conv_block2, adapter.conv_block3)
    pairs = [(block.conv, block.bn) for block in blocks]
    return fused_conv.pooled_features(x, adapter.conv_up, pairs, adapter.grid, None, pixels)


def error(found: Tensor, expected: Tensor) -> float:
    """Return the distance relative to what is expected."""
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, training: bool, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        if training and name.endswith(
            "conv.bias"
        ):  # the mean takes it away: plain code leaves rounding errors
            assert not tensor.any(), name
            assert expected[name].norm() < 1e-9 * expected["features"].numel(), name
        else:
            assert error(tensor, expected[name]) < tolerance, name


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("shape", "grid"),
    [((1, 6, 64, 64), 8), ((3, 6, 32, 32), 4), ((2, 6, 40, 24), 3), ((1, 6, 8, 16), 4)],
    ids=["one", "batch", "uneven pooling", "smallest"],
)
def test_features_and_gradients_are_those_of_the_plain_modules(shape, grid, training):
    fused = filled_adapter(8, grid).train(training)
    plain = copy.deepcopy(fused)
    found = step(fused, fused.features(image(*shape)))
    expected = step(plain, plain.plain_features(image(*shape)))
    assert (found["features"] - expected["features"]).abs().max() < 5e-14
    assert_same(found, expected, training=training)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(fused.get_buffer(name), buffer, rtol=1e-13, atol=0)


@pytest.mark.parametrize("pixels", [1, 50, 64, 100, 200, 1000, 5000])
def test_parts_of_every_size_give_the_same(pixels):
    adapter = filled_adapter(4, 3).train()
    x = image(3, 6, 48, 24) / 255
    found = step(adapter, pooled(adapter, x, pixels))
    expected = step(adapter, pooled(adapter, x, 10**9))
    assert all(torch.allclose(found[name], expected[name], rtol=1e-10, atol=1e-12) for name in found)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("images", [1, 2])
def test_few_images_at_once_give_the_statistics_and_gradients_of_all(images, training):
    few = filled_adapter(4, 3).train(training)
    all_of_them = copy.deepcopy(few)
    x = image(3, 6, 48, 24)
    with limited(Limits(images=images, divisor=4)):
        found = step(few, few.features(x))
    expected = step(all_of_them, all_of_them.features(x))
    assert all(torch.allclose(found[name], expected[name], rtol=1e-10, atol=1e-12) for name in found)
    for name, buffer in all_of_them.named_buffers():
        torch.testing.assert_close(few.get_buffer(name), buffer, rtol=1e-13, atol=0)


def test_few_images_at_once_take_less_memory():
    adapter = filled_adapter(32, 8).float().train()
    x = image(4, 6, 128, 128, dtype=torch.float32)
    peaks = []
    for images in (None, 2, 1):
        with limited(Limits(images, divisor=4)):
            peaks.append(peak_bytes(lambda: step(adapter, adapter.features(x))))
    one = 32 * 64 * 64 * 4  # bytes of the largest array of one image
    assert peaks[0] - peaks[1] > 1.9 * one
    assert peaks[1] - peaks[2] > 0.9 * one


@pytest.mark.parametrize("pixels", [1, 7, 40, 96, 200, 10**6])
@pytest.mark.parametrize("multiple", [1, 2])
def test_parts_cover_every_row_once_and_are_no_larger_than_asked_for(pixels, multiple):
    seen = torch.zeros(5, 1, 12, 8)
    for part in parts(seen.shape, pixels, multiple):
        part.of(seen).add_(1)
        assert part.of(seen).numel() <= max(pixels, multiple * 8)
        assert (part.last - part.first) % multiple == 0
    assert (seen == 1).all()


class _Features(nn.Module):
    """`features` as `forward`, for `functional_call`."""

    def __init__(self, adapter: ConvAdapter):
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter.features(x)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_are_those_of_finite_differences(training):
    module = _Features(filled_adapter(3, 2).train(training))
    names = [name for name, _ in module.named_parameters()]
    x = image(1, 6, 16, 16)

    def features(*values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    values = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(features, values)


def test_running_statistics_move_once_a_step_and_never_in_eval():
    adapter = filled_adapter(4, 4).train()
    adapter.features(image(2, 6, 32, 32)).sum().backward()
    adapter.features(image(2, 6, 32, 32))
    moved = {name: buffer.clone() for name, buffer in adapter.named_buffers()}
    assert [int(value) for name, value in moved.items() if name.endswith("tracked")] == [2, 2, 2]
    adapter.eval().features(image(2, 6, 32, 32)).sum().backward()
    assert all(torch.equal(buffer, moved[name]) for name, buffer in adapter.named_buffers())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_float32_is_near_to_float64(training):
    exact = filled_adapter(32, 8).train(training)
    fused = copy.deepcopy(exact).float()
    x = image(2, 6, 64, 64)
    found = step(fused, fused.features(x.float()))
    expected = step(exact, exact.plain_features(x))
    assert error(found.pop("features"), expected.pop("features")) < 1e-5
    for name, gradient in found.items():
        if not (training and name.endswith("conv.bias")):
            assert error(gradient, expected[name]) < 2e-3, name


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bf16_is_as_near_to_float64_as_the_plain_modules_are(training):
    exact = filled_adapter(32, 8).train(training)
    fused, plain = copy.deepcopy(exact).float(), copy.deepcopy(exact).float()
    x = image(2, 6, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found, rough = fused.features(x.float()), plain.plain_features(x.float())
    assert found.dtype == rough.dtype == torch.bfloat16
    found, rough = step(fused, found), step(plain, rough)
    expected = step(exact, exact.plain_features(x))
    for name, tensor in found.items():
        if not (training and name.endswith("conv.bias")):
            assert error(tensor, expected[name]) < 1.5 * error(rough[name], expected[name]), name


@pytest.fixture
def fused_calls(monkeypatch) -> list[torch.Size]:
    """Collect the shapes of what goes through the fused blocks."""
    calls: list[torch.Size] = []
    original = fused_conv.pooled_features

    def spy(x: Tensor, *arguments) -> Tensor:
        calls.append(x.shape)
        return original(x, *arguments)

    monkeypatch.setattr(fused_conv, "pooled_features", spy)
    return calls


def test_frames_take_the_fused_blocks_with_and_without_gradients(fused_calls):
    adapter = filled_adapter(4, 4)
    with torch.no_grad():
        adapter.eval().features(image(1, 6, 32, 32))
    adapter.train().features(image(2, 6, 32, 32), torch.tensor([0.5, 0.5]))
    assert fused_calls == [(1, 6, 32, 32), (2, 6, 32, 32)]


@pytest.mark.parametrize("shape", [(2, 6, 36, 32), (2, 6, 32, 33)])
def test_sizes_that_do_not_halve_evenly_take_the_plain_modules(fused_calls, shape):
    adapter = filled_adapter(4, 4).train()
    found = adapter.features(image(*shape))
    assert torch.equal(found, adapter.plain_features(image(*shape)))
    assert fused_calls == []


def test_an_input_that_needs_a_gradient_gets_it_from_the_plain_modules(fused_calls):
    adapter = filled_adapter(4, 4).train()
    x = image(1, 6, 32, 32).requires_grad_()
    adapter.features(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert fused_calls == []


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_autograd_keeps_less_than_a_twentieth(precision):
    adapter = filled_adapter(128, 16).float().train()
    x = image(1, 6, 128, 128, dtype=torch.float32)
    own = adapter.state_dict().values()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        plain = kept_bytes(lambda: adapter.plain_features(x), own)
        fused = kept_bytes(lambda: adapter.features(x), own)
    assert 0 < 20 * fused < plain


def test_a_step_takes_a_fifth_of_the_memory_and_no_more_an_image_for_a_batch():
    adapter = filled_adapter(64, 32).float().train()

    def peak(features, batch: int) -> int:
        x = image(batch, 6, 256, 256, dtype=torch.float32)
        return peak_bytes(lambda: features(x).sum().backward())

    one = peak(adapter.features, 1)
    assert 5 * one < peak(adapter.plain_features, 1)
    assert peak(adapter.features, 4) < 3 * one


class _Largest(TorchDispatchMode):
    """Remembers the largest array that any operation makes, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_no_array_is_larger_than_what_one_wide_convolution_makes():
    batch, width, size = 3, 32, 128
    adapter = filled_adapter(width, 16).float().train()
    x = image(batch, 6, size, size, dtype=torch.float32) / 255
    with _Largest() as largest:
        pooled(adapter, x, 1024).sum().backward()
    assert largest.bytes == batch * width * (size // 2 + 4) * (size // 2) * 4


def test_prediction_makes_nothing_larger_than_its_input():
    width, size = 32, 128
    adapter = filled_adapter(width, 16).float().eval()
    x = image(1, 6, size, size, dtype=torch.float32) / 255
    with torch.no_grad(), _Largest() as largest:
        pooled(adapter, x, 512)
    assert largest.bytes == 7 * (size + 4) ** 2 * 4


def test_fake_tensors_go_through_forward_and_backward():
    with FakeTensorMode():
        adapter = ConvAdapter(4, 4).train()
        features = adapter.features(torch.zeros(2, 6, 32, 32))
        features.sum().backward()
    assert features.shape == (2, 4, 4, 4)
    for parameter in adapter.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    """Return what each of two processes got for every case."""
    folder = tmp_path_factory.mktemp("fused")
    spawn(run, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", COUNTS)
def test_two_processes_give_what_one_gives_for_the_joined_batch(of_two_processes, name):
    shares = [share_of(rank, count) for rank, count in enumerate(COUNTS[name]) if count]
    images, gradient, _ = (torch.cat(tensors) for tensors in zip(*shares, strict=True))
    expected = measured(images, gradient, None)
    found = [result[name] for result in of_two_processes]
    features = [part["features"][:count] for part, count in zip(found, COUNTS[name], strict=True)]
    torch.testing.assert_close(torch.cat(features), expected["features"], rtol=0, atol=1e-13)
    for key, tensor in expected.items():
        if key.endswith(".grad"):  # processes add up their gradients
            torch.testing.assert_close(sum(part[key] for part in found), tensor, rtol=1e-10, atol=1e-10)
        elif key != "features":
            for part in found:
                torch.testing.assert_close(part[key], tensor, rtol=1e-12, atol=0)
