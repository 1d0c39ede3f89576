"""Which batch fits, and what is given up for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_support import MB, SETUP, WEIGHTS, estimate, of_prediction

from samfit.plan import choice
from samfit.plan.choice import Way, best_way, largest_batch, offers, peak, setups_of
from samfit.plan.setup import Estimate, Setup

LORA = replace(SETUP, method="lora", backbone="sam-vit-b", image_size=128)
"""A method whose images do not depend on each other."""


@pytest.fixture(autouse=True)
def _known_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "training", estimate)
    monkeypatch.setattr(choice, "prediction", of_prediction)


@given(megabytes=st.integers(0, 5000), checkpointing=st.booleans(), batch=st.integers(1, 64))
def test_the_largest_batch_fits_and_the_next_does_not(megabytes: int, checkpointing: bool, batch: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "training", estimate)
        # One image at a time, as at 1024 px: small images go through the encoder together.
        setup = replace(SETUP, checkpointing=checkpointing, image_size=1024, batch_size=batch)
        budget = megabytes * 64 * MB
        largest = largest_batch(setup, budget)
        assert largest == 0 or peak(replace(setup, batch_size=largest)) <= budget
        assert largest == 1024 or peak(replace(setup, batch_size=largest + 1)) > budget


@given(budget=st.integers(0, 40), images=st.integers(0, 8), inputs=st.floats(0, 0.5))
def test_a_moment_that_hardly_grows_hides_nothing(budget: int, images: int, inputs: float):
    """While single images are encoded, as much is held as `images` of them keep for backward."""
    image = 64 * 40 * MB

    def with_encoding(setup: Setup) -> Estimate:
        step = replace(estimate(setup), inputs=int(inputs * image) * setup.batch_size)
        return replace(step, temporary=max(0, images * image - step.activations))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "training", with_encoding)
        setup = replace(SETUP, image_size=1024)
        largest = largest_batch(setup, WEIGHTS + budget * image)
        fits = [
            count
            for count in range(1, 50)
            if with_encoding(replace(setup, batch_size=count)).peak <= WEIGHTS + budget * image
        ]
        assert largest <= max(fits, default=0)
        assert largest >= 0.5 * max(fits, default=0)


def test_gradients_of_earlier_parts_are_there_while_a_part_passes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "training", lambda setup: replace(estimate(setup), optimizer=60 * MB))
    setup = replace(LORA, batch_size=4)
    room = WEIGHTS + 60 * MB + 80 * MB
    assert best_way([setup], room + 30 * MB) == Way(replace(setup, batch_size=2), 2)
    assert best_way([setup], room) == Way(replace(setup, batch_size=1), 4)
    assert best_way([setup], room + 80 * MB) == Way(setup)
    assert best_way([setup], room + 80 * MB, accumulated=True) == Way(replace(setup, batch_size=2), 2)


def test_few_small_images_fit_where_all_that_go_together_do_not():
    assert largest_batch(SETUP, WEIGHTS + 5 * 40 * MB) == 4
    assert largest_batch(SETUP, WEIGHTS + 39 * MB) == 0


def test_filling_the_cache_counts_where_it_takes_more_than_a_step():
    cached = replace(SETUP, cached=True)
    assert peak(cached) == WEIGHTS // 5 + 160 * MB
    assert peak(replace(cached, batch_size=1)) == WEIGHTS + 40 * MB


def test_ways_are_in_the_order_of_what_they_cost():
    found = setups_of(SETUP, precisions=["32", "bf16"])
    assert [(way.precision, way.checkpointing, way.cached) for way in found] == [
        (precision, again, cached)
        for precision in ("32", "bf16")
        for again in (False, True)
        for cached in (False, True)
    ]


def test_nothing_is_given_up_where_the_batch_fits():
    way = best_way(setups_of(SETUP, precisions=["32", "bf16"], cached=[False]), WEIGHTS + 160 * MB)
    assert way == Way(SETUP)
    assert way.given_up == ()


@pytest.mark.parametrize(
    ("images", "expected", "given_up"),
    [
        (2, replace(LORA, batch_size=2), ("a batch passes in 2 parts",)),
        (1, replace(LORA, batch_size=1), ("a batch passes in 4 parts",)),
        (0.5, replace(LORA, batch_size=2, checkpointing=True), None),
        (0.25, replace(LORA, batch_size=1, checkpointing=True), None),
        (0.125, replace(LORA, batch_size=1, checkpointing=True, precision="bf16"), None),
    ],
)
def test_parts_come_before_time_and_time_before_rounding(images: float, expected: object, given_up: object):
    way = best_way(
        setups_of(LORA, precisions=["32", "bf16"], cached=[False]), WEIGHTS + int(images * 40 * MB)
    )
    assert way is not None
    assert way.setup == expected
    assert given_up is None or way.given_up == given_up


def test_a_method_with_batch_statistics_gives_up_all_else_before_it_splits_a_batch():
    setups = setups_of(SETUP, precisions=["32", "bf16"], cached=[False])
    whole = best_way(setups, WEIGHTS + 20 * MB)
    assert whole == Way(replace(SETUP, precision="bf16", checkpointing=True))
    split = best_way(setups, WEIGHTS + 19 * MB)
    assert split is not None
    assert split.parts == 2
    assert split.given_up[0] == "batch statistics over a part of the batch (of 2)"


def test_nothing_is_chosen_where_a_single_image_does_not_fit():
    assert best_way(setups_of(SETUP, precisions=["32", "bf16"]), WEIGHTS + 4 * MB) is None


def test_offers_are_what_fits_and_else_fewer_blocks():
    setups = setups_of(LORA, precisions=["32"], cached=[False])
    found = offers(setups, WEIGHTS + 10 * MB)
    assert [(offer.setup.checkpointing, offer.largest_batch) for offer in found] == [(True, 1)]
    fewer = offers(setups, WEIGHTS + 15 * MB // 2 * 2 // 2)
    assert [dict(offer.setup.options) for offer in fewer] == [{"late_blocks": 3}]
    assert Way(fewer[0].setup).given_up[0] == "only the last 3 blocks are adapted"
    assert offers(setups_of(SETUP, precisions=["32"], cached=[False]), WEIGHTS) == []
