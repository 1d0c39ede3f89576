"""Every image once an epoch, whatever the batch, the parts and the processes; the same for the same seed."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samfit.data.order import Draw, StepOrder


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, int]:
    """Arguments of a `StepOrder`, but for rank and world, and a world: as the settings allow them."""
    batch_size = draw(st.integers(1, 12))
    accumulate = draw(st.integers(1, batch_size))
    return {
        "count": draw(st.integers(1, 40)),
        "batch_size": batch_size,
        "accumulate": accumulate,
        "seed": draw(st.integers(0, 2**32)),
        "world": draw(st.integers(1, max(1, batch_size // accumulate))),
    }


def processes(cut: dict[str, int]) -> list[StepOrder]:
    return [StepOrder(**cut, rank=rank) for rank in range(cut["world"])]


@given(cuts(), st.integers(0, 5))
def test_every_image_passes_once_an_epoch(cut, epoch):
    draws = [
        draw
        for order in processes(cut)
        for parts in order.epoch(epoch)
        for draw in chain.from_iterable(parts)
    ]
    assert {draw.epoch for draw in draws} == {epoch}
    counted = Counter(draw.index for draw in draws if draw.share > 0)
    assert counted == Counter(range(cut["count"]))


@given(cuts())
def test_the_shares_of_a_step_add_up_to_one_and_are_alike(cut):
    for steps in zip(*(order.epoch(0) for order in processes(cut)), strict=True):
        shares = [draw.share for parts in steps for draw in chain.from_iterable(parts) if draw.share > 0]
        assert len(set(shares)) == 1
        assert sum(shares) == pytest.approx(1, abs=1e-12)


@given(cuts())
def test_steps_are_full_but_for_the_last(cut):
    [order] = processes(cut | {"world": 1})
    sizes = [sum(map(len, parts)) for parts in order.epoch(0)]
    assert len(sizes) == order.steps
    assert sizes[:-1] == [cut["batch_size"]] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= cut["batch_size"]


@given(cuts())
def test_a_step_has_no_more_parts_than_asked_for_and_all_processes_as_many(cut):
    for steps in zip(*(order.epoch(0) for order in processes(cut)), strict=True):
        assert len({len(parts) for parts in steps}) == 1
        assert 1 <= len(steps[0]) <= cut["accumulate"]


@given(cuts())
def test_parts_are_alike_in_size(cut):
    [order] = processes(cut | {"world": 1})
    largest = -(-cut["batch_size"] // cut["accumulate"])
    for parts in order.epoch(0):
        assert [len(part) for part in parts[:-1]] == [largest] * (len(parts) - 1)
        assert 1 <= len(parts[-1]) <= largest


@given(cuts())
def test_only_a_process_without_images_is_kept_busy(cut):
    for steps in zip(*(order.epoch(0) for order in processes(cut)), strict=True):
        for part in zip(*steps, strict=True):  # the same part of every process
            images = sum(draw.share > 0 for own in part for draw in own)
            for rank, own in enumerate(part):
                if rank < images:
                    assert all(draw.share > 0 for draw in own)
                else:
                    assert [draw.share for draw in own] == [0.0]
            sizes = [len(own) for own in part]
            assert max(sizes) - min(sizes) <= 1


@given(cuts())
def test_processes_together_see_the_steps_of_one(cut):
    [alone] = processes(cut | {"world": 1})
    shared = zip(*(order.epoch(3) for order in processes(cut)), strict=True)
    for whole, steps in zip(alone.epoch(3), shared, strict=True):
        for own, *parts in zip(whole, *steps, strict=True):
            together = [draw for part in parts for draw in part if draw.share > 0]
            assert sorted(together, key=by_index) == sorted(own, key=by_index)


def by_index(draw: Draw) -> int:
    return draw.index


@given(cuts(), st.integers(0, 5), st.data())
def test_an_epoch_may_begin_at_any_of_its_steps(cut, epoch, data):
    order = processes(cut)[-1]
    whole = list(order.epoch(epoch))
    start = data.draw(st.integers(0, order.steps))
    assert list(order.epoch(epoch, start)) == whole[start:]


def indices(seed: int, epoch: int, count: int = 30) -> list[int]:
    order = StepOrder(count=count, batch_size=4, accumulate=2, seed=seed)
    return [draw.index for parts in order.epoch(epoch) for part in parts for draw in part]


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_seeds_and_epochs_have_orders_of_their_own(seed, epoch):
    assert indices(seed, epoch) == indices(seed, epoch)
    assert indices(seed, epoch) != indices(seed, epoch + 1)
    assert indices(seed, epoch) != indices(seed + 1, epoch)


def test_the_first_order_stays_what_it_is():
    # A run that was started with an older version must go on in the same order.
    assert indices(seed=0, epoch=0, count=8) == [2, 4, 3, 6, 5, 0, 1, 7]


@given(cuts())
def test_the_most_at_once_is_the_size_of_the_largest_part_of_any_process(cut):
    orders = processes(cut)
    sizes = [len(part) for order in orders for parts in order.epoch(0) for part in parts]
    assert {order.most_at_once for order in orders} == {max(sizes)}
