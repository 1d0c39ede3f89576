"""Work in chunks: the same numbers in less memory, and frozen MLPs that keep their input alone."""

from contextlib import suppress
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from memory_support import kept_bytes
from parity_support import error
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from samfit.backbones import chunks
from samfit.backbones.chunks import first_only, plus, slices
from samfit.backbones.mlp import feed_forward
from samfit.testing.held import peak_bytes


@pytest.mark.parametrize(
    ("total", "size", "expected"), [(5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 4, [(0, 4)]), (2, 9, [(0, 2)])]
)
def test_slices_cover_everything_once(total, size, expected):
    assert [(part.start, part.stop) for part in slices(total, size)] == expected


def test_first_only_ends_every_loop_after_its_first_chunk_and_no_longer_than_asked():
    with first_only():
        assert list(slices(5, 2)) == [slice(0, 2)]
    assert len(list(slices(5, 2))) == 3


def test_limits_hold_inside_their_block_and_not_after_an_error_in_it():
    with suppress(ZeroDivisionError), chunks.limited(chunks.Limits(images=2, divisor=4)):
        assert chunks.limits().images == 2
        assert chunks.tokens_at_once() == chunks.TOKENS // 4
        assert chunks.cells_at_once() == chunks.CELLS // 4
        raise ZeroDivisionError
    assert chunks.limits() == chunks.Limits(images=None, divisor=1)
    assert chunks.tokens_at_once() == chunks.TOKENS
    assert chunks.cells_at_once() == chunks.CELLS


@pytest.mark.parametrize("tokens", [1, 20, 1000])
@pytest.mark.parametrize("shape", [(2, 7, 5, 3), (2, 7, 3)])
def test_without_gradient_tokens_are_overwritten_and_each_unit_is_seen_whole(shape, tokens, monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", tokens)
    seen = []

    def double(part):
        seen.append(part.shape[1])
        return 2 * part

    values = torch.randn(shape)
    expected = 3 * values
    with torch.no_grad():
        result = plus(values, double, unit=3)
    assert result is values
    assert torch.equal(result, expected)
    assert sum(seen) == 7
    assert all(rows % 3 == 0 for rows in seen[:-1])
    assert (len(seen) == 3) == (tokens == 1 or (tokens == 20 and len(shape) == 4))


def test_with_gradient_tokens_stay_as_they_are():
    values = torch.randn(1, 4, 3)
    before = values.clone()
    assert torch.equal(plus(values, torch.cos), before + before.cos())
    assert torch.equal(values, before)


def layers(width=6, hidden=10, dtype=torch.float64):
    torch.manual_seed(0)
    first, second = nn.Linear(width, hidden, dtype=dtype), nn.Linear(hidden, width, dtype=dtype)
    return first.requires_grad_(False), second.requires_grad_(False)


def plain(first, second, x):
    return second(F.gelu(first(x)))


@pytest.mark.parametrize("tokens", [1, 4, 5, 100])
def test_a_frozen_mlp_gives_the_same_numbers(tokens, monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", tokens)
    both = layers()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    given = torch.randn_like(x)
    answer, expected = feed_forward(*both, x), plain(*both, x)
    assert error(answer, expected) < 1e-15
    found, wanted = (torch.autograd.grad(result, x, given)[0] for result in (answer, expected))
    assert error(found, wanted) < 1e-14
    torch.autograd.gradcheck(lambda x: feed_forward(*both, x), x)


def test_a_frozen_mlp_keeps_its_input_alone_and_makes_few_hidden_tokens(monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", 64)
    both = layers(16, 256, torch.float32)
    parameters = [parameter for layer in both for parameter in layer.parameters()]
    x = torch.randn(1, 4096, 16, requires_grad=True)
    hidden = 4096 * 256 * 4
    assert kept_bytes(lambda: plain(*both, x), without=[*parameters, x]) >= hidden, "it must be able to fail"
    assert kept_bytes(lambda: feed_forward(*both, x), without=[*parameters, x]) == 0
    assert kept_bytes(lambda: feed_forward(*both, x), without=parameters) == 4096 * 16 * 4
    assert peak_bytes(lambda: feed_forward(*both, x).sum().backward()) < hidden / 2


def test_behind_a_checkpoint_a_frozen_mlp_is_not_computed_again_for_nothing():
    both, x = layers(dtype=torch.float32), torch.randn(8, 6, requires_grad=True)
    operations = []
    for through in (feed_forward, partial(checkpoint, feed_forward, use_reentrant=False)):
        with FlopCounterMode(display=False) as counter:
            through(*both, x).sum().backward()
        operations.append(counter.get_total_flops())
    assert operations[0] == operations[1] > 0


@pytest.mark.parametrize("trained", [0, 1])
def test_a_trained_mlp_gets_its_gradients(trained):
    both = layers()
    both[trained].weight.requires_grad_(True)
    x = torch.randn(5, 6, dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad(function(*both, x).sum(), both[trained].weight)[0]
        for function in (feed_forward, plain)
    )
    assert torch.equal(found, wanted)


def test_a_wrapped_layer_is_called_as_a_module():
    class Twice(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    first, second = layers()
    twice = Twice(6, 10, dtype=torch.float64).requires_grad_(False)
    twice.load_state_dict(first.state_dict())
    x = torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(feed_forward(twice, second, x), second(F.gelu(2 * first(x))))


def test_a_frozen_mlp_in_half_precision_is_that_of_autocast():
    both = layers(dtype=torch.float32)
    x = torch.randn(5, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        answer, expected = feed_forward(*both, x), plain(*both, x)
    assert answer.dtype == expected.dtype == torch.bfloat16
    assert error(answer, expected) < 1e-2
    found, wanted = (torch.autograd.grad(result.sum(), x)[0] for result in (answer, expected))
    assert found.dtype == torch.float32
    assert error(found, wanted) < 1e-2
