import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samfit.data.transforms import draw_matrix, warp_image, warp_masks

SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 10_000)


def warp_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move points (P, 2), (x, y) in pixel indices, as images and masks must move."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random image and two random soft masks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.random((2, height, width), dtype=np.float32)


def flipped(image: np.ndarray) -> dict[bytes, np.ndarray]:
    """The eight flips and quarter turns of an array whose first two axes are rows and columns."""
    turned = [np.rot90(start, turns) for start in (image, image[:, ::-1]) for turns in range(4)]
    return {array.tobytes() + repr(array.shape).encode(): array for array in turned}


@given(SIDES, SIDES, SEEDS)
def test_no_augmentation_changes_nothing(height, width, seed):
    image, masks = scene(height, width)
    matrix, *size = draw_matrix("none", height, width, np.random.default_rng(seed))
    assert size == [height, width]
    np.testing.assert_array_equal(warp_image(image, matrix, *size), image)
    np.testing.assert_array_equal(warp_masks(masks, matrix, *size), masks)
    points = np.array([[0, 0], [width - 1, height - 1]], np.float32)
    np.testing.assert_array_equal(warp_points(points, matrix), points)


@given(SIDES, SIDES, SEEDS)
def test_flips_and_quarter_turns_are_exact(height, width, seed):
    image, masks = scene(height, width)
    matrix, *size = draw_matrix("flips", height, width, np.random.default_rng(seed))
    moved = warp_image(image, matrix, *size)
    # The one that the image became must be the one that masks and points became.
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    columns, rows = warp_points(points, matrix).T
    assert moved.shape == (*size, 3)
    assert moved.tobytes() + repr(moved.shape).encode() in flipped(image)
    np.testing.assert_array_equal(moved[rows.astype(int), columns.astype(int)], image[y.ravel(), x.ravel()])
    moved_masks = warp_masks(masks, matrix, *size)
    np.testing.assert_array_equal(
        moved_masks[:, rows.astype(int), columns.astype(int)], masks[:, y.ravel(), x.ravel()]
    )


def test_all_eight_flips_and_turns_are_drawn():
    image, _ = scene(5, 7)
    drawn = set()
    for seed in range(200):
        matrix, *size = draw_matrix("flips", 5, 7, np.random.default_rng(seed))
        drawn.add(warp_image(image, matrix, *size).tobytes())
    assert len(drawn) == 8


@given(st.integers(24, 80), st.integers(24, 80), st.floats(0, 1), st.floats(0, 1), SEEDS)
def test_a_point_on_an_object_stays_on_it(height, width, right, down, seed):
    centre = np.array([[right * (width - 1), down * (height - 1)]], np.float32)
    mask = np.zeros((1, height, width), np.float32)
    x, y = centre[0].round().astype(int)
    cv2.circle(mask[0], (int(x), int(y)), 4, 1.0, -1)
    matrix, *size = draw_matrix("affine", height, width, np.random.default_rng(seed))
    (column, row) = warp_points(np.array([[x, y]], np.float32), matrix)[0].round().astype(int)
    if 0 <= column < size[1] and 0 <= row < size[0]:
        assert warp_masks(mask, matrix, *size)[0, row, column] > 0.5


@given(st.integers(24, 80), st.integers(24, 80), SEEDS)
def test_image_and_masks_stay_aligned(height, width, seed):
    _, masks = scene(6, 6, seed)
    smooth = cv2.resize(masks[0], (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    image = np.repeat((255 * smooth).round().astype(np.uint8)[..., None], 3, axis=2)
    matrix, *size = draw_matrix("affine", height, width, np.random.default_rng(seed))
    moved_image = warp_image(image, matrix, *size)
    moved_mask = warp_masks(smooth[None], matrix, *size)[0]
    assert abs(moved_image[..., 0] / 255 - moved_mask).max() < 0.02


@given(SIDES, SIDES, SEEDS)
def test_masks_stay_soft_within_their_range(height, width, seed):
    _, masks = scene(height, width)
    matrix, *size = draw_matrix("affine", height, width, np.random.default_rng(seed))
    moved = warp_masks(masks, matrix, *size)
    assert moved.shape == (2, *size)
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    full = warp_masks(np.ones_like(masks), matrix, *size)
    np.testing.assert_allclose(full, 1, atol=1e-6)


@given(st.integers(10, 400), st.integers(10, 400), SEEDS)
def test_affine_moves_stay_within_their_limits(height, width, seed):
    matrix, new_height, new_width = draw_matrix("affine", height, width, np.random.default_rng(seed))
    assert {new_height, new_width} == {height, width}
    linear = matrix[:, :2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    assert 0.9 <= scale <= 1.1
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-9)
    angle = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
    assert abs((angle + 45) % 90 - 45) <= 15
    centre = np.array([[(width - 1) / 2, (height - 1) / 2]], np.float32)
    shift = warp_points(centre, matrix)[0] - [(new_width - 1) / 2, (new_height - 1) / 2]
    assert (abs(shift) <= 0.06 * np.array([new_width, new_height]) + 1e-3).all()


def test_what_comes_in_from_outside_is_reflected():
    image, masks = scene(6, 9)
    matrix = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(warp_image(image, matrix, 6, 9)[:, :2], image[:, 2:0:-1])
    np.testing.assert_array_equal(warp_masks(masks, matrix, 6, 9)[:, :, :2], masks[:, :, 2:0:-1])


@pytest.mark.parametrize("kind", ["flips", "affine"])
def test_the_same_generator_draws_the_same_matrix(kind):
    first, second = (draw_matrix(kind, 30, 50, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:] == second[1:]
