import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from parity_support import load_golden

from samfit.data.prompts import has_box, make_prompt, prompt_seed
from samfit.errors import SettingError
from samfit.settings import PROMPTS
from samfit.types import BOTTOM_RIGHT, NEGATIVE, NOTHING, POSITIVE, TOP_LEFT

MASKS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
SEEDS = st.integers(0, 1000)


def prompt(kind: str, mask: np.ndarray | None, seed: int = 0, **options: int):
    height, width = (6, 8) if mask is None else mask.shape
    return make_prompt(kind, mask, height, width, np.random.default_rng(seed), **options)


@given(MASKS, SEEDS, st.integers(1, 4), st.integers(0, 3))
def test_clicks_lie_on_what_they_say(mask, seed, clicks, negative):
    points, labels = prompt("click", mask, seed, clicks=clicks, negative_clicks=negative)
    assert points.shape == (clicks + negative, 2)
    assert points.dtype == np.float32
    assert labels.dtype == np.int64
    x, y = points.astype(int).T
    foreground = mask[y, x] >= 0.5
    if not (mask >= 0.5).any():
        assert (labels == NOTHING).all()
        return
    assert (labels[:clicks] == POSITIVE).all()
    assert foreground[:clicks].all()
    if (mask >= 0.5).all():
        assert (labels[clicks:] == NOTHING).all()
    else:
        assert (labels[clicks:] == NEGATIVE).all()
        assert not foreground[clicks:].any()


def test_clicks_are_x_then_y():
    mask = np.zeros((6, 8), np.float32)
    mask[1, 5] = 1
    points, _ = prompt("click", mask)
    assert points.tolist() == [[5, 1]]


def test_clicks_are_different_pixels_as_long_as_there_are_enough():
    mask = np.zeros((6, 8), np.float32)
    mask[2, 3:6] = 1
    points, _ = prompt("click", mask, clicks=3)
    assert sorted(points[:, 0]) == [3, 4, 5]
    points, labels = prompt("click", mask, clicks=5)
    assert set(points[:, 0]) == {3, 4, 5}
    assert (labels == POSITIVE).all()


def test_every_foreground_pixel_can_be_clicked():
    mask = np.zeros((6, 8), np.float32)
    mask[2:4, 3:6] = 1
    seen = {tuple(prompt("click", mask, seed)[0][0]) for seed in range(100)}
    assert seen == {(x, y) for x in (3, 4, 5) for y in (2, 3)}


@given(MASKS)
def test_a_box_without_jitter_is_tight(mask):
    points, labels = prompt("box", mask)
    rows, columns = np.nonzero(mask >= 0.5)
    if rows.size == 0:
        assert labels.tolist() == [NOTHING, NOTHING]
        return
    assert labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]
    assert points.tolist() == [[columns.min(), rows.min()], [columns.max(), rows.max()]]


@given(MASKS.filter(lambda mask: (mask >= 0.5).any()), SEEDS, st.integers(0, 6))
def test_a_jittered_box_stays_in_the_image_and_near_the_mask(mask, seed, jitter):
    points, labels = prompt("box", mask, seed, box_jitter=jitter)
    tight, _ = prompt("box", mask)
    height, width = mask.shape
    assert labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]
    assert (points >= 0).all()
    assert (points <= [width - 1, height - 1]).all()
    assert (points[0] <= points[1]).all()
    assert (abs(points - tight) <= jitter).all()
    assert (points == points.round()).all()


def test_jitter_moves_each_side_both_ways_to_its_limit():
    mask = np.zeros((20, 20), np.float32)
    mask[8:12, 8:12] = 1
    moves = np.array([prompt("box", mask, seed, box_jitter=2)[0] for seed in range(200)])
    moves -= prompt("box", mask)[0]
    assert set(moves[:, 0, 0]) == set(moves[:, 1, 1]) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("case", ["A", "B"])
def test_the_whole_image_is_the_box_of_the_published_trainer(case):
    stored, _ = load_golden("cad_sam_tiny")
    height, width = stored[f"{case}.in.image"].shape[1:3]
    points, labels = make_prompt("full-box", None, height, width, np.random.default_rng(0))
    published = stored[f"{case}.in.boxes"][0].numpy()  # in a frame of 128 pixels
    np.testing.assert_allclose(points * 128 / max(height, width), published.reshape(2, 2))
    assert labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]


def test_no_prompt_has_no_slots():
    points, labels = prompt("none", None)
    assert points.shape == (0, 2)
    assert labels.shape == (0,)


@pytest.mark.parametrize("kind", PROMPTS)
def test_the_number_of_slots_does_not_depend_on_the_mask(kind):
    masks = [np.zeros((6, 8), np.float32), np.ones((6, 8), np.float32), np.eye(6, 8, dtype=np.float32)]
    shapes = {prompt(kind, mask, clicks=3, negative_clicks=2)[0].shape for mask in masks}
    assert len(shapes) == 1


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_kind_with_a_box_ends_in_its_corners(kind):
    _, labels = prompt(kind, np.eye(6, 8, dtype=np.float32))
    assert has_box(kind) == (labels.tolist()[-2:] == [TOP_LEFT, BOTTOM_RIGHT])


@pytest.mark.parametrize("kind", ["click", "box"])
def test_a_prompt_that_needs_a_mask_says_so(kind):
    with pytest.raises(SettingError, match=f"--prompt {kind} is taken from a mask.*--prompts FILE"):
        prompt(kind, None)


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(SettingError, match="did you mean 'click'"):
        prompt("clik", None)


def test_seeds_differ_by_seed_epoch_and_sample_and_never_change():
    keys = [
        (0, "a", None),
        (1, "a", None),
        (0, "b", None),
        (0, "a", 0),
        (0, "a", 1),
        (0, "1", 1),
        (1, "1", 0),
    ]
    assert len({prompt_seed(*key) for key in keys}) == len(keys)
    assert prompt_seed(0, "a", None) == 6554200495616385715
