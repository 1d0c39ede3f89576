"""Dermoscopy-like images drawn by code, for the demo and for tests: no download, no licence, a sure truth.

They have what makes real ones hard (hairs, gel bubbles, ruler marks, dark corners, faint and ragged borders)
and are laid out as ISIC 2016 part 1 is. The shapes are drawn by rules of thumb, not measured from patients.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samfit.files import atomic_path, write_text

Field = NDArray[np.floating]
"""(H, W), one number a pixel."""
Pixels = NDArray[np.floating]
"""(H, W, 3), red, green and blue in 0…1."""

_SKINS = ((0.93, 0.76, 0.68), (0.88, 0.70, 0.55), (0.80, 0.62, 0.46), (0.91, 0.72, 0.70), (0.72, 0.54, 0.42))
_PIGMENTS = (
    (0.44, 0.25, 0.14),
    (0.30, 0.18, 0.13),
    (0.20, 0.14, 0.13),
    (0.57, 0.31, 0.17),
    (0.50, 0.32, 0.26),
)


def draw_lesions(
    folder: Path,
    *,
    training: int = 60,
    test: int = 20,
    size: tuple[int, int] = (192, 144),
    seed: int = 0,
    faint_negatives: bool = False,
) -> None:
    """Write drawn images and masks into `folder` as ISIC 2016 part 1 lays them out.

    `training`, `test`: images of each split. `size`: width and height. `faint_negatives`: the same lesions as
    `as_faint_negative` shows them. The same arguments give the same files. Raises `StorageError` if one
    cannot be written.
    """
    for split, first, images in (("Training", 0, training), ("Test", training, test)):
        name = f"ISBI2016_ISIC_Part1_{split}"
        rows = [",img,seg"]
        for number in range(images):
            stem = f"drawn_{first + number:04d}"
            rng = np.random.default_rng([seed, first + number])
            image, mask = draw_lesion(rng, *size)
            if faint_negatives:
                image = as_faint_negative(rng, image)
            picture, truth = f"{name}_Data/{stem}.jpg", f"{name}_GroundTruth/{stem}_Segmentation.png"
            _save(folder / picture, image)
            _save(folder / truth, mask.astype(np.uint8) * 255)
            rows.append(f"{number},{picture},{truth}")
        write_text(folder / f"{name}_GroundTruth.csv", "\n".join(rows) + "\n")


def draw_lesion(
    rng: np.random.Generator, width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one image (height, width, 3) and the mask of its lesion (height, width).

    The mask has the smooth border that an expert would draw; the lesion itself is more ragged.
    """
    outline, radius = _lesion_shape(rng, width, height)
    inside = outline + _raggedness(rng, width, height)
    skin = _skin(rng, width, height)
    softness = rng.uniform(0.015, 0.09)
    cover = rng.uniform(0.6, 0.97) * _step(inside / softness)[..., None]
    pixels = skin + cover * (_pigment(rng, inside, radius) - skin)
    if rng.random() < 0.45:
        _draw_bubbles(rng, pixels)
    if rng.random() < 0.5:
        pixels = _with_hairs(rng, pixels)
    if rng.random() < 0.2:
        _draw_ruler(rng, pixels)
    pixels = _with_light(rng, pixels)
    pixels += rng.normal(0, rng.uniform(0.004, 0.015), pixels.shape)
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8), outline > 0


def as_faint_negative(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in false colours: what was dark is bright, with less contrast and in patches.

    A shift of domain: the same shapes, in other colours and another light.
    """
    height, width = image.shape[:2]
    # Red and green change places: on the blue that skin would become, blue predictions could not be seen.
    negative = 1 - image[..., [1, 0, 2]].astype(np.float32) / 255
    faint = negative.mean(axis=(0, 1)) + 0.45 * (negative - negative.mean(axis=(0, 1)))
    patches = 0.1 * _noise(rng, width, height, min(width, height) / 22)
    return np.rint((faint + patches[..., None]).clip(0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, width: int, height: int, cell: float) -> Field:
    """Smooth random field with mean about 0 and deviation about 1 that changes over `cell` pixels."""
    columns, rows = int(width / cell) + 3, int(height / cell) + 3
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    x, y = np.arange(width, dtype=np.float32) / cell + 1, np.arange(height, dtype=np.float32) / cell + 1
    x, y = x + np.float32(rng.random()), y + np.float32(rng.random())
    smooth = cv2.remap(
        coarse, *np.meshgrid(x, y), interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return 1.4 * np.asarray(smooth)


def _step(field: Field) -> Field:
    """From 0 to 1 around zero, softly."""
    return 0.5 + 0.5 * np.tanh(field / 2)


def _lesion_shape(rng: np.random.Generator, width: int, height: int) -> tuple[Field, float]:
    """Return how far inside the lesion's outline a pixel is, in radii (below 0 outside), and its radius."""
    side = min(width, height)
    radius = side * rng.uniform(0.13, 0.40)
    centre_x = width * (0.5 + rng.uniform(-0.5, 0.5) * (0.6 - radius / side))
    centre_y = height * (0.5 + rng.uniform(-0.5, 0.5) * (0.6 - radius / side))
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
    x, y = np.meshgrid(np.arange(width) - centre_x, np.arange(height) - centre_y)
    along = (x * np.cos(turn) + y * np.sin(turn)) / stretch
    across = (y * np.cos(turn) - x * np.sin(turn)) * stretch
    angle, distance = np.arctan2(across, along), np.hypot(along, across) / radius
    border = np.ones_like(distance)
    for waves in range(2, 8):
        border += rng.normal(0, 0.16 / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return border - distance, radius


def _raggedness(rng: np.random.Generator, width: int, height: int) -> Field:
    """How far the lesion's border leaves its smooth outline, in radii."""
    side = min(width, height)
    coarse = rng.uniform(0.01, 0.05) * _noise(rng, width, height, side / 30)
    return coarse + rng.uniform(0.01, 0.04) * _noise(rng, width, height, side / 70)


def _skin(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Skin with blotches, a grain of fine lines and, at times, redness."""
    first, second = (np.array(_SKINS[rng.integers(len(_SKINS))]) for _ in range(2))
    tone = first + rng.uniform(0, 1) * (second - first)
    side = min(width, height)
    blotches = 0.020 * _noise(rng, width, height, side / 3) + 0.012 * _noise(rng, width, height, side / 12)
    grain = 0.012 * _noise(rng, width, height, max(1.5, side / 70))
    red = rng.uniform(0, 0.03) * _noise(rng, width, height, side / 4).clip(0, None)
    return tone + (blotches + grain)[..., None] + red[..., None] * [0.3, -1.0, -0.8]


def _pigment(rng: np.random.Generator, inside: Field, radius: float) -> Pixels:
    """Two browns in blotches, darker inwards, with a net of lines, globules, or neither; at times a veil."""
    height, width = inside.shape
    first, second = (np.array(_PIGMENTS[rng.integers(len(_PIGMENTS))]) for _ in range(2))
    blotches = 0.5 + 0.35 * _noise(rng, width, height, max(3, radius / 2.5))
    colour = first + blotches.clip(0, 1)[..., None] * (second - first)
    colour *= 1 - rng.uniform(0, 0.3) * inside.clip(0, 1)[..., None]
    texture = rng.choice(["net", "globules", "plain"])
    cell = max(2.0, radius / 9)
    if texture == "net":
        lines = np.exp(-((_noise(rng, width, height, cell) / 0.35) ** 2))
        colour *= 1.12 - rng.uniform(0.15, 0.4) * lines[..., None]
    elif texture == "globules":
        drops = _step(6 * (_noise(rng, width, height, 0.8 * cell) - 1))
        colour *= 1.05 - rng.uniform(0.2, 0.5) * drops[..., None]
    if rng.random() < 0.2:
        veil = 0.5 * (_noise(rng, width, height, radius / 1.5) - 0.3).clip(0, 1)
        colour += veil[..., None] * (np.array([0.55, 0.55, 0.62]) - colour)
    return colour + 0.02 * _noise(rng, width, height, 1.6)[..., None]


def _draw_bubbles(rng: np.random.Generator, pixels: Pixels) -> None:
    """Draw bubbles of gel: a thin bright ring with a glint."""
    height, width = pixels.shape[:2]
    for _ in range(rng.integers(1, 7)):
        centre = int(rng.integers(width)), int(rng.integers(height))
        radius = int(rng.integers(2, max(3, min(width, height) // 18) + 1))
        ring = np.zeros((height, width), dtype=np.float32)
        cv2.circle(ring, centre, radius, 0.35, 1, cv2.LINE_AA)
        cv2.circle(ring, (centre[0] - radius // 2, centre[1] - radius // 2), max(1, radius // 4), 0.8, -1)
        pixels += ring[..., None] * (1 - pixels)


def _with_hairs(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Lay hairs across the image: thin curves of one colour, some of them light."""
    height, width = pixels.shape[:2]
    scale = 2
    hairs = np.zeros((scale * height, scale * width), dtype=np.uint8)
    size = np.array([scale * width, scale * height])
    lean = rng.uniform(0, np.pi)
    steps = np.linspace(0, 1, 24)[:, None]
    for _ in range(rng.integers(2, 16)):
        direction = lean + rng.normal(0, 0.5)
        half = 0.5 * rng.uniform(0.25, 0.9) * size.max() * np.array([np.cos(direction), np.sin(direction)])
        middle = rng.uniform(0, 1, 2) * size
        bend = middle + rng.normal(0, 0.15, 2) * size
        start, end = middle - half, middle + half
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        thickness = 1 + int(rng.random() < 0.5) + max(0, min(width, height) // 200 - 1)
        cv2.polylines(hairs, [np.rint(curve).astype(np.int32)], False, (255,), thickness, cv2.LINE_AA)
    cover = cv2.resize(hairs, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colour = np.array([0.85, 0.80, 0.72] if rng.random() < 0.15 else [0.16, 0.10, 0.08])
    return pixels + rng.uniform(0.6, 0.95) * cover[..., None] * (colour - pixels)


def _draw_ruler(rng: np.random.Generator, pixels: Pixels) -> None:
    """Draw the marks of a ruler along the lower edge, every fifth longer."""
    height, width = pixels.shape[:2]
    pitch = width // 24 + int(rng.integers(4))
    for number, x in enumerate(range(pitch // 2, width, pitch)):
        length = height // (10 if number % 5 == 0 else 18)
        cv2.line(pixels, (x, height - 1), (x, height - length), (0.15, 0.13, 0.13), 1, cv2.LINE_AA)


def _with_light(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Light the image from one side; darken the corners, as the round view of a dermatoscope does."""
    height, width = pixels.shape[:2]
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.12) * (x * np.cos(direction) + y * np.sin(direction))
    distance = np.hypot((x - rng.normal(0, 0.05)) * width / height, y - rng.normal(0, 0.05))
    if rng.random() < 0.6:
        edge, blur = rng.uniform(1.15, 1.5), rng.uniform(0.03, 0.12)
        light *= 0.13 + 0.87 * _step((edge - distance) / blur)
    else:
        light *= 1 - 0.12 * distance**2 / 2.8
    return pixels * light[..., None]


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, quality=92)  # PNG has no quality and ignores it
