"""A picture in the making, and the masks of what is painted on it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]
"""(H, W), one number a pixel."""
Colour = NDArray[np.floating]
"""(3,) or (H, W, 3): red, green and blue in 0…1."""
Point = NDArray[np.floating]
"""(x, y) in pixels."""
Outline = NDArray[np.floating]
"""(N, 2), the corners of a closed line around the origin, about one unit away from it."""
Stroke = tuple[Point, Point, float]
"""A piece of a line: from, to and width in pixels."""

SIDE = 128
"""Pixels of a scene's longer side."""
SMALLEST = 16
"""Pixels that a mask must have."""
_SAME = 0.85
"""Share of a whole's pixels above which a part is the whole, and no mask of its own."""
_SUBPIXEL = 4
"""Binary digits after the point in coordinates that are handed to OpenCV."""


@dataclass(frozen=True)
class Scene:
    """A picture and what may be asked for on it."""

    image: NDArray[np.uint8]
    """(H, W, 3); the longer side has `SIDE` pixels."""
    masks: NDArray[np.bool_]
    """(K, H, W), K of at least one: what is to be seen of each object, part or group."""
    part_of: tuple[int, ...]
    """For each mask the mask that it is a part of, or -1. A part lies inside its whole."""
    groups: tuple[bool, ...]
    """For each mask whether it is several objects of a kind: to be asked for with a box, not with a click."""
    family: str = ""
    """What kind of scene it is: a name of `scenes.FAMILIES`."""


class Canvas:
    """A picture in the making, with the masks of what was painted so far."""

    def __init__(self, rng: np.random.Generator, height: int, width: int):
        self.rng = rng
        self.height, self.width = height, width
        self.side = min(height, width)
        self.pixels: Field = np.zeros((height, width, 3), dtype=np.float32)
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32)
        self._masks: list[NDArray[np.bool_]] = []
        self._part_of: list[int] = []
        self._groups: list[list[int]] = []

    def chance(self, share: float) -> bool:
        """Return True in this share of the cases."""
        return bool(self.rng.random() < share)

    def place(self) -> Point:
        """Return a random (x, y) on the picture."""
        return self.rng.uniform(0, [self.width, self.height])

    def size(self, smallest: float, largest: float) -> float:
        """Return a radius between these shares of the shorter side, small ones as likely as large ones."""
        return self.side * float(np.exp(self.rng.uniform(np.log(smallest), np.log(largest))))

    def area(self, outline: Outline, centre: Point, radius: float) -> Field:
        """Return how much of each pixel lies inside an outline of this radius, 0…1."""
        cover = np.zeros((self.height, self.width), dtype=np.uint8)
        corners = np.rint((centre + radius * outline) * 2**_SUBPIXEL).astype(np.int32)
        cv2.fillPoly(cover, [corners], (255,), cv2.LINE_AA, _SUBPIXEL)
        return cover.astype(np.float32) / 255

    def strokes(self, pieces: Iterable[Stroke]) -> Field:
        """Return how much of each pixel lies on strokes, 0…1; widths of half a pixel are possible."""
        cover = np.zeros((2 * self.height, 2 * self.width), dtype=np.uint8)
        for start, end, width in pieces:
            first, last = (np.rint(2 * point * 2**_SUBPIXEL).astype(int).tolist() for point in (start, end))
            cv2.line(cover, first, last, (255,), max(1, round(2 * width)), cv2.LINE_AA, _SUBPIXEL)
        smaller = cv2.resize(cover, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return smaller.astype(np.float32) / 255

    def noise(self, cell: float) -> Field:
        """Return a smooth random field with deviation of about 1 that changes over `cell` pixels."""
        rows, columns = (int(np.ceil(length / cell)) + 4 for length in (self.height, self.width))
        coarse = self.rng.standard_normal((rows, columns), dtype=np.float32)
        size = max(self.width, int(columns * cell)), max(self.height, int(rows * cell))
        fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        top, left = ((length - own) // 2 for length, own in ((size[1], self.height), (size[0], self.width)))
        return 1.4 * fine[top : top + self.height, left : left + self.width]

    @cached_property
    def grain(self) -> Field:
        """A field as fine as the pixels."""
        return self.noise(1.5)

    def paint(
        self, cover: Field, colour: Colour, *, opacity: float = 1.0, blur: float = 0.0
    ) -> NDArray[np.bool_]:
        """Lay a colour over the covered pixels, with a soft edge of `blur` pixels; return what is covered."""
        left, top, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
        edge = math.ceil(4 * blur)  # no more than what is covered is touched: most things are small
        rows = slice(max(0, top - edge), top + height + edge)
        columns = slice(max(0, left - edge), left + width + edge)
        soft, pixels = cover[rows, columns], self.pixels[rows, columns]
        if blur > 0 and soft.size:
            soft = cv2.GaussianBlur(soft, (0, 0), blur)
        colour = colour[rows, columns] if colour.ndim > 1 else colour
        pixels += opacity * soft[..., None] * (colour - pixels)
        return cover > 0.5

    def keep(self, mask: NDArray[np.bool_], *, part_of: int = -1, hides: bool = True) -> int:
        """Remember a mask and return its number.

        A part is cut to what is still to be seen of its whole, and takes its pixels from the other parts of
        it; any other mask takes them from all those before it, unless it `hides` nothing.
        """
        if part_of >= 0:
            mask = mask & self._masks[part_of]
        for other, whole in zip(self._masks, self._part_of, strict=True):
            if hides and part_of in (-1, whole):
                other &= ~mask
        self._masks.append(mask.copy())
        self._part_of.append(part_of)
        return len(self._masks) - 1

    def group(self, members: list[int]) -> None:
        """Let the union of these masks be asked for too, where there are several."""
        self._groups.append(members)

    def scene(self) -> Scene | None:
        """Return the finished scene, or None if no mask is left that is large enough."""
        self._drop_parts_that_are_all()
        large = [number for number, mask in enumerate(self._masks) if mask.sum() >= SMALLEST]
        places = {number: place for place, number in enumerate(large)}
        masks = [self._masks[number] for number in large]
        part_of = [places.get(self._part_of[number], -1) for number in large]
        for members in self._groups:
            seen = [self._masks[number] for number in members if number in places]
            if len(seen) > 1:
                masks.append(np.logical_or.reduce(seen))
                part_of.append(-1)
        groups = (False,) * len(large) + (True,) * (len(masks) - len(large))
        if not large:
            return None
        image = np.rint(self.pixels.clip(0, 1) * 255).astype(np.uint8)
        return Scene(image, np.stack(masks), tuple(part_of), groups)

    def _drop_parts_that_are_all(self) -> None:
        for mask, whole in zip(self._masks, self._part_of, strict=True):
            if whole >= 0 and mask.sum() > _SAME * self._masks[whole].sum():
                mask[:] = False
