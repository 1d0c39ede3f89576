import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samfit.data.splits import held_apart, hold_out
from samfit.errors import DataError
from samfit.types import Sample


def samples(count: int, split: str = "train") -> list[Sample]:
    return [Sample(f"{split}-{i:03}", split, Path(f"{split}/{i}.jpg"), {}) for i in range(count)]


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 9))
def test_every_training_image_is_in_exactly_one_part_and_both_have_some(count, fraction, seed):
    everything = samples(count) + samples(3, "test")
    train, validation = hold_out(everything, fraction, seed)
    assert train
    assert validation
    assert sorted(sample.id for sample in train + validation) == [f"train-{i:03}" for i in range(count)]
    assert len(validation) == min(max(1, round(fraction * count)), count - 1)


@given(st.randoms(use_true_random=False))
def test_order_of_files_has_no_influence(shuffler: random.Random):
    everything = samples(20)
    shuffled = shuffler.sample(everything, 20)
    assert hold_out(shuffled, 0.3, 1) == hold_out(everything, 0.3, 1)


def test_seed_decides_and_the_choice_never_changes():
    held = [[sample.id for sample in hold_out(samples(10), 0.3, seed)[1]] for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    assert held[0] == ["train-004", "train-005", "train-008"]


def test_new_image_moves_at_most_one_other():
    held = [{sample.id for sample in hold_out(samples(count), 10 / count, 0)[1]} for count in (100, 101)]
    assert len(held[0] - held[1]) <= 1


def test_own_validation_split_is_used_and_nothing_held_back():
    train, validation = hold_out(samples(1) + samples(2, "validation") + samples(3, "test"), 0.5, 0)
    assert [sample.id for sample in train] == ["train-000"]
    assert [sample.id for sample in validation] == ["validation-000", "validation-001"]


def test_what_is_held_back_can_be_seen_apart_in_the_order_of_the_samples():
    everything = samples(3, "test") + samples(10)
    _, held = hold_out(everything, 0.3, 0)
    apart = held_apart(everything, 0.3, 0)
    assert [sample.image for sample in apart] == [sample.image for sample in everything]
    assert [one.split for one in apart] == ["validation" if one in held else one.split for one in everything]
    own = samples(3) + samples(2, "validation")
    assert held_apart(own, 0.3, 0) == tuple(own)
    assert held_apart(samples(1), 0.3, 0) == tuple(samples(1))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (samples(1) + samples(5, "test"), "1 training images; at least 2"),
        (samples(5, "test"), "0 training images; at least 2"),
        (samples(2, "validation"), "0 training images; at least 1"),
    ],
)
def test_too_few_training_images_are_an_error(found, words):
    with pytest.raises(DataError, match=words):
        hold_out(found, 0.15, 0)


def grouped(*sizes: int) -> list[Sample]:
    """Return training samples of groups of these sizes, called g0, g1, …"""
    return [
        replace(sample, id=f"{number}-{sample.id}", group=f"g{number}")
        for number, size in enumerate(sizes)
        for sample in samples(size)
    ]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.floats(0.01, 0.99), st.integers(0, 9))
def test_images_of_a_group_stay_together(sizes, fraction, seed):
    everything = grouped(*sizes)
    train, validation = hold_out(everything, fraction, seed)
    assert train
    assert validation
    assert {sample.group for sample in train}.isdisjoint(sample.group for sample in validation)
    assert len(train) + len(validation) == len(everything)
    assert len(validation) <= max(round(fraction * len(everything)), min(sizes))


def test_as_many_groups_are_held_back_as_the_fraction_says():
    held = hold_out(grouped(*[4] * 25), 0.2, 0)[1]
    assert len(held) == 20
    assert len({sample.group for sample in held}) == 5


def test_a_group_that_is_too_large_is_passed_over_and_the_smallest_taken_if_all_are():
    for seed in range(5):
        assert len(hold_out(grouped(30, 1, 1, 1, 1), 0.12, seed)[1]) == 4
        assert {sample.group for sample in hold_out(grouped(9, 5, 7), 0.1, seed)[1]} == {"g1"}


def test_the_seed_chooses_groups_and_a_new_one_moves_few_others():
    held = [{sample.group for sample in hold_out(grouped(*[3] * 20), 0.2, seed)[1]} for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    more = {sample.group for sample in hold_out(grouped(*[3] * 21), 0.2, 0)[1]}
    assert len(held[0] - more) <= 1


def test_one_group_alone_cannot_be_split_but_may_have_a_validation_split_beside_it():
    with pytest.raises(DataError, match=r"all 5 training images are of the group 'g0'.*take --group away"):
        hold_out(grouped(5), 0.2, 0)
    assert len(hold_out(grouped(5) + samples(2, "validation"), 0.2, 0)[0]) == 5
