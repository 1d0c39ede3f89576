"""Attention without maps: the same numbers as with maps, and none of their memory."""

import math
from typing import NamedTuple

import pytest
import torch
from memory_support import kept_bytes
from parity_support import error
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionAttention

from samfit.backbones import attention, chunks
from samfit.backbones.attention import attend, relative_positions
from samfit.testing.held import peak_bytes

LEAN = ["chunked", "folded"]


def positions(tables, grid):
    return relative_positions(tables[0], grid[0]), relative_positions(tables[1], grid[1])


class Case(NamedTuple):
    """Random queries, keys and values, tables, and the gradient of the answer."""

    qkv: Tensor
    tables: tuple[Tensor, Tensor]
    given: Tensor
    grid: tuple[int, int]

    def to(self, dtype, tables=None):
        """The same numbers in another precision, the tables in one of their own."""
        down, across = (table.detach().to(tables or dtype).requires_grad_() for table in self.tables)
        qkv = self.qkv.detach().to(dtype).requires_grad_()
        return Case(qkv, (down, across), self.given.to(dtype), self.grid)

    def answer(self, kind, tables=True):
        return attend(self.qkv, positions(self.tables, self.grid) if tables else None, kind)

    def gradients(self, kind, tables=True):
        wanted = [self.qkv, *self.tables] if tables else [self.qkv]
        return torch.autograd.grad(self.answer(kind, tables), wanted, self.given)


def case(images=2, grid=(6, 6), heads=3, dim=4, dtype=torch.float64, lengths=None, spread=0.5) -> Case:
    generator = torch.Generator().manual_seed(0)
    cells = math.prod(grid)

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    tables = [
        draw(length, dim, scale=spread).requires_grad_()
        for length in lengths or [2 * side - 1 for side in grid]
    ]
    return Case(
        draw(images, cells, 3, heads, dim).requires_grad_(),
        (tables[0], tables[1]),
        draw(images, cells, heads * dim),
        grid,
    )


def assert_equal_to_eager(case, kind):
    assert error(case.answer(kind), case.answer("eager")) < 1e-14
    for found, expected in zip(case.gradients(kind), case.gradients("eager"), strict=True):
        assert error(found, expected) < 1e-12


def test_with_maps_it_is_the_formula_cell_by_cell():
    one = case(images=1, grid=(2, 3), heads=1)
    query, key, value = one.qkv[0, :, :, 0].detach().unbind(1)
    down, across = (table.detach() for table in one.tables)
    expected = torch.empty_like(value)
    for n in range(6):
        scores = torch.empty(6, dtype=torch.float64)
        for m in range(6):
            below, right = n // 3 - m // 3, n % 3 - m % 3
            scores[m] = query[n] @ key[m] / 2 + query[n] @ down[below + 1] + query[n] @ across[right + 2]
        expected[n] = (scores.exp() / scores.exp().sum()) @ value
    torch.testing.assert_close(one.answer("eager")[0], expected)


def test_with_maps_it_is_the_attention_of_transformers():
    module = SamVisionAttention(SamVisionConfig(hidden_size=12, num_attention_heads=3, qkv_bias=True), 5)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 5, 5, 12, generator=torch.Generator().manual_seed(0))
    qkv = module.qkv(tokens).view(2, 25, 3, 3, 4)
    answer = attend(qkv, positions((module.rel_pos_h, module.rel_pos_w), (5, 5)), "eager")
    torch.testing.assert_close(module.proj(answer).view_as(tokens), module(tokens)[0])


@pytest.mark.parametrize("kind", LEAN)
@pytest.mark.parametrize("grid", [(6, 6), (3, 7), (8, 2)])
def test_without_maps_the_numbers_are_the_same(kind, grid):
    assert_equal_to_eager(case(grid=grid), kind)


@pytest.mark.parametrize("cells", [1, 6 * 36, 3 * 6 * 36, 36**2, 2 * 36**2, 3 * 36**2])
def test_chunks_of_every_size_give_the_same_numbers(cells, monkeypatch):
    monkeypatch.setattr(chunks, "CELLS", cells)
    assert_equal_to_eager(case(), "chunked")


@pytest.mark.parametrize("kind", LEAN)
def test_tables_of_another_length_are_resized(kind):
    assert_equal_to_eager(case(grid=(4, 6), lengths=(11, 9)), kind)


@pytest.mark.parametrize("kind", LEAN)
def test_without_tables_the_numbers_are_the_same(kind):
    one = case()
    assert error(one.answer(kind, tables=False), one.answer("eager", tables=False)) < 1e-14
    (found,), (expected,) = one.gradients(kind, tables=False), one.gradients("eager", tables=False)
    assert error(found, expected) < 1e-12
    assert error(one.answer(kind), one.answer(kind, tables=False)) > 0.01


@pytest.mark.parametrize("kind", LEAN)
def test_gradients_are_those_of_finite_differences(kind):
    one = case(images=1, grid=(2, 3), heads=2, dim=2)
    torch.autograd.gradcheck(
        lambda qkv, down, across: attend(qkv, positions((down, across), one.grid), kind),
        (one.qkv, *one.tables),
    )


@pytest.mark.parametrize("kind", LEAN)
def test_in_single_precision_the_error_is_that_of_rounding(kind):
    single = case(grid=(14, 14), dim=16, dtype=torch.float32, spread=0.1)
    double = single.to(torch.float64)
    assert error(single.answer(kind), double.answer("eager")) < 3e-7
    for found, expected in zip(single.gradients(kind), double.gradients("eager"), strict=True):
        assert error(found, expected) < 1e-6


@pytest.mark.parametrize("kind", [*LEAN, "eager"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_in_half_precision_it_is_finite_and_close(kind, dtype, tolerance):
    half = case(grid=(14, 14), dim=16, dtype=dtype)
    double, half = half.to(torch.float64), half.to(dtype, tables=torch.float32)
    with torch.autocast("cpu", dtype):
        answer = half.answer(kind)
    assert answer.dtype == dtype
    gradients = torch.autograd.grad(answer, [half.qkv, *half.tables], half.given)
    assert error(answer, double.answer("eager")) < tolerance
    for found, expected in zip(gradients, double.gradients("eager"), strict=True):
        assert error(found, expected) < tolerance


def test_in_half_precision_chunks_are_computed_in_single_precision():
    half = case(grid=(14, 14), dim=16, dtype=torch.bfloat16)
    single = half.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        answer = half.answer("chunked")
    assert torch.equal(answer, single.answer("chunked").bfloat16())
    (gradient,) = torch.autograd.grad(answer, half.qkv, half.given)
    assert torch.equal(gradient, single.gradients("chunked")[0].bfloat16())


@pytest.mark.parametrize("kind", LEAN)
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_gradients_that_are_asked_for_are_given(kind, needed):
    one = case()
    qkv, *tables = inputs = [tensor.detach() for tensor in (one.qkv, *one.tables)]
    for tensor, need in zip(inputs, needed, strict=True):
        tensor.requires_grad_(need)
    attend(qkv, positions(tables, one.grid), kind).backward(one.given)
    for tensor, need, expected in zip(inputs, needed, one.gradients("eager"), strict=True):
        assert (tensor.grad is not None) == need
        if need:
            assert error(tensor.grad, expected) < 1e-12


def test_a_table_is_looked_up_by_how_far_places_are_apart():
    table = torch.arange(5.0)[:, None]
    expected = torch.tensor([[2.0, 1, 0], [3, 2, 1], [4, 3, 2]])
    assert torch.equal(relative_positions(table, 3)[..., 0], expected)
    stretched = torch.linspace(0, 4, 9)[:, None]
    assert relative_positions(stretched, 3).shape == (3, 3, 1)


def largest(tables=True):
    """A case whose maps are much larger than everything else, and the bytes of one map of each head."""
    one = case(images=1, grid=(32, 32), heads=4, dim=16, dtype=torch.float32)
    return one, 4 * 4 * 1024**2


@pytest.mark.parametrize("tables", [True, False], ids=["tables", "no tables"])
@pytest.mark.parametrize("kind", LEAN)
def test_no_map_is_kept_for_backward_or_held_at_any_time(kind, tables, monkeypatch):
    monkeypatch.setattr(chunks, "CELLS", 2**16)
    one, maps = largest()
    eager = kept_bytes(lambda: one.answer("eager", tables))
    assert eager >= maps, "the check must be able to fail"
    assert kept_bytes(lambda: one.answer(kind, tables), without=[one.qkv]) < maps / 2
    assert peak_bytes(lambda: one.gradients(kind, tables)) < maps
    with torch.no_grad():
        assert peak_bytes(lambda: one.answer(kind, tables)) < maps / 2


@pytest.mark.parametrize("cells", [1, 6 * 36, 3 * 6 * 36, 36**2, 2 * 36**2, 3 * 36**2])
def test_no_chunk_is_larger_than_it_may_be_unless_it_is_one_row_of_one_head(cells, monkeypatch):
    monkeypatch.setattr(chunks, "CELLS", cells)
    sizes, chances = [], attention._chances

    def watched(*operands):
        sizes.append(chances(*operands).numel())
        return chances(*operands)

    monkeypatch.setattr(attention, "_chances", watched)
    one = case()
    one.answer("chunked")
    assert max(sizes) <= max(cells, 6 * 36)
    assert max(sizes) > cells / 2 or cells == 1
    assert sum(sizes) == 2 * 3 * 36**2


def test_chunks_keep_the_input_and_positions_alone():
    one, _ = largest()
    both_positions, places = 2 * 32**2 * 16 * 4, 2 * 32**2 * 8
    assert kept_bytes(lambda: one.answer("chunked"), without=[one.qkv]) <= both_positions + places


@pytest.mark.parametrize("kind", LEAN)
@pytest.mark.parametrize("first_only", [False, True])
def test_it_can_be_traced_without_values(kind, first_only, monkeypatch):
    monkeypatch.setattr(chunks, "CELLS", 36)
    one = case(images=1, heads=1)
    with FakeTensorMode() as mode:
        fake = Case(
            mode.from_tensor(one.qkv),
            tuple(mode.from_tensor(table) for table in one.tables),
            mode.from_tensor(one.given),
            one.grid,
        )
        with chunks.first_only() if first_only else torch.enable_grad():
            gradients = fake.gradients(kind)
    assert [gradient.shape for gradient in gradients] == [one.qkv.shape, *(t.shape for t in one.tables)]


def test_auto_is_chunked_on_a_cpu(monkeypatch):
    one = case(dtype=torch.float32)
    monkeypatch.setattr(chunks, "CELLS", 36)
    assert torch.equal(one.answer("auto"), one.answer("chunked"))
    assert not torch.equal(one.answer("auto"), one.answer("folded"))
