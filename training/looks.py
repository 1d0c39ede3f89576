"""How things look: colours, textures, light and what a camera makes of them."""

import math

import cv2
import numpy as np
from canvas import SIDE, Canvas, Colour, Field
from numpy.typing import NDArray


def any_colour(rng: np.random.Generator) -> Colour:
    """Return a colour of any lightness, most often a dull one."""
    return (rng.uniform(0.05, 0.95) + rng.uniform(0, 0.3) * spread(rng)).clip(0, 1)


def spread(rng: np.random.Generator) -> Colour:
    """Return three normal numbers."""
    return rng.standard_normal(3, dtype=np.float32)


def usual(rng: np.random.Generator, *colour: float) -> Colour:
    """Return about this colour, lighter or darker; in one case of three any colour at all."""
    if rng.random() < 0.33:
        return any_colour(rng)
    return (np.array(colour, dtype=np.float32) * rng.uniform(0.7, 1.2) + 0.05 * spread(rng)).clip(0, 1)


def near(rng: np.random.Generator, colour: Colour, nearest: float, farthest: float) -> Colour:
    """Return a colour at about this distance from another, lighter or darker and of another tint."""
    step = rng.uniform(nearest, farthest) * (1 if rng.random() < 0.5 else -1)
    if not 0 <= colour.mean() + step <= 1:
        step = -step
    return (colour + step + 0.35 * abs(step) * spread(rng)).clip(0, 1)


def _pattern(canvas: Canvas) -> Field:
    """Return a texture in about -1…1: nothing, a slope, blotches, stripes, checks, spots or a net."""
    rng = canvas.rng
    period = math.exp(rng.uniform(math.log(3), math.log(24)))
    turn = rng.uniform(0, math.pi)
    along = canvas.x * math.cos(turn) + canvas.y * math.sin(turn)
    match rng.integers(8):
        case 0:
            return np.zeros_like(canvas.x)
        case 1:
            return (along - along.mean()) / SIDE
        case 2 | 3:
            return canvas.noise(period).clip(-2, 2) / 2
        case 4:
            return np.sin(2 * np.pi * along / period + rng.uniform(0, 1.5) * canvas.noise(20))
        case 5:
            across = canvas.y * math.cos(turn) - canvas.x * math.sin(turn)
            return np.sign(np.sin(np.pi * along / period) * np.sin(np.pi * across / period))
        case 6:
            return 2 * step(4 * (canvas.noise(period) - 0.7)) - 0.5
        case _:
            return 1 - 2 * np.exp(-((canvas.noise(period) / 0.3) ** 2))


def textured(canvas: Canvas, colour: Colour, strength: float = 0.3) -> Colour:
    """Return a colour a pixel: a texture of at most this strength, and a fine grain."""
    rng = canvas.rng
    tint = 1 + 0.4 * spread(rng)
    texture = colour + rng.uniform(0, strength) * _pattern(canvas)[..., None] * tint
    return texture + (rng.uniform(0, 0.05) * canvas.grain)[..., None]


def step(field: Field) -> Field:
    """From 0 to 1 around zero, softly."""
    return 0.5 + 0.5 * np.tanh(field / 2)


def domed(canvas: Canvas, cover: Field, radius: float, strength: float) -> Field:
    """Return a factor (H, W, 1) of light on a thing that bulges towards the viewer."""
    round_ = cv2.GaussianBlur(cover, (0, 0), max(1.0, radius / 2.5))
    turn = canvas.rng.uniform(0, 2 * math.pi)
    right, down = cv2.Sobel(round_, cv2.CV_32F, 1, 0), cv2.Sobel(round_, cv2.CV_32F, 0, 1)
    slope = math.cos(turn) * right + math.sin(turn) * down
    return 1 + strength * (slope / (np.abs(slope).max() + 1e-6))[..., None]


def light(canvas: Canvas) -> None:
    """Light the picture from one side and darken its corners, both as often as not."""
    rng = canvas.rng
    x, y = 2 * canvas.x / canvas.width - 1, 2 * canvas.y / canvas.height - 1
    if canvas.chance(0.5):
        turn = rng.uniform(0, 2 * math.pi)
        canvas.pixels *= (1 + rng.uniform(0, 0.35) * (x * math.cos(turn) + y * math.sin(turn)))[..., None]
    if canvas.chance(0.25):
        corner = step((np.hypot(x, y) - rng.uniform(0.95, 1.3)) / rng.uniform(0.04, 0.15))
        canvas.pixels *= 1 - rng.uniform(0.3, 1) * corner[..., None]


def developed(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as a camera gives it: contrast, blur, noise, grey or in false colours, compressed."""
    pixels = image.astype(np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels ** math.exp(rng.normal(0, 0.3))
    if rng.random() < 0.4:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.15:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.1:
        pixels = 1 - pixels
    if rng.random() < 0.15:
        pixels = pixels[..., rng.permutation(3)]
    pixels = pixels + rng.uniform(0, 0.04) * rng.standard_normal(pixels.shape, dtype=np.float32)
    developed = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
        developed = cv2.imdecode(cv2.imencode(".jpg", developed, quality)[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(developed)
