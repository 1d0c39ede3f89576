"""Images that show the same picture: equal pixel by pixel, or alike by a perceptual hash.

The hash is that of pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash
functions") with signs instead of comparisons to the median: the picture is reduced to 64 x 64 grey values,
and each of the 256 lowest frequencies of their cosine transform gives one bit, its sign. Rescaling, another
aspect, another brightness and saving as JPEG change few signs; mirroring, turning and cropping change many.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samfit.types import Sample

Progress = Callable[[Iterable, str, int], Iterable]
"""Wraps an iterable to show how far it is: (iterable, what is done, how many) to the same iterable."""
PictureHash = NDArray[np.uint64]
"""(4,): the 256 bits of a perceptual hash."""

BITS = 256
ALIKE = 20
"""Bits in which two files of one photograph may differ; unrelated pictures differ in about half of all 256.

Of 4104 copies of images of eight real data sets, at a third to twice the size, saved as JPEG of quality 30 to
90, all but three differ from their original by no more; those three, of asphalt, by up to 27. What is alike
without being a copy differs by 28 and more: by 28 two frames of one video, by 30 the eyes of two people.
"""

_SIDE = 64
_BLANK = 1.0
"""Standard deviation of grey values, 0…255, below which a picture shows nothing that could be compared."""
_FREQUENCIES = sorted(
    ((row, column) for row in range(_SIDE) for column in range(_SIDE) if row or column),
    key=lambda place: (sum(place), place),
)[:BITS]
_ROWS, _COLUMNS = np.array(_FREQUENCIES).T


def picture_hash(image: NDArray[np.uint8]) -> PictureHash | None:
    """Return the perceptual hash of an RGB image (H, W, 3), or None of a blank one."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if small.std() < _BLANK:
        return None
    return np.packbits(cv2.dct(small)[_ROWS, _COLUMNS] > 0).view(np.uint64)


@dataclass(frozen=True)
class Seen:
    """What is kept of an image to know it again."""

    sample: Sample
    digest: bytes
    """Of its pixels."""
    hash: PictureHash | None
    """None if it is blank."""


@dataclass(frozen=True)
class Duplicate:
    """Two images of one picture, the earlier of the data set first."""

    first: Sample
    second: Sample
    bits: int | None
    """How many bits of their hashes differ, 0 to `ALIKE`, or None if their pixels are equal."""

    @property
    def between_splits(self) -> bool:
        """Whether what is trained on is scored as well, or chooses the epoch."""
        return self.first.split != self.second.split


def find_duplicates(seen: Sequence[Seen], progress: Progress | None = None) -> tuple[Duplicate, ...]:
    """Return, for each image that was seen before, which one it repeats: at most one pair an image.

    Of several it is one in another split if there is any, then one of equal pixels, then the one that is most
    alike. Every pair is compared: 10 000 images take a second, 100 000 about a minute.
    """
    nothing = np.zeros(BITS // 64, dtype=np.uint64)
    hashes = np.array([nothing if one.hash is None else one.hash for one in seen]).T.copy()
    blank = np.array([one.hash is None for one in seen])
    numbers: dict[bytes, int] = {}
    pictures = np.array([numbers.setdefault(one.digest, len(numbers)) for one in seen])
    splits = np.array([one.sample.split for one in seen])
    found = []
    later = range(1, len(seen))
    for number in progress(later, "comparing", len(later)) if progress else later:
        equal = pictures[:number] == pictures[number]
        bits = np.bitwise_count(hashes[:, :number] ^ hashes[:, number, None]).sum(axis=0, dtype=np.int16)
        bits[blank[:number] | blank[number]] = BITS
        bits[equal] = -1
        near = np.flatnonzero(bits <= ALIKE)
        if near.size:
            same_split = splits[near] == splits[number]
            earlier = int(near[np.lexsort((bits[near], same_split))[0]])
            shown = None if equal[earlier] else int(bits[earlier])
            found.append(Duplicate(seen[earlier].sample, seen[number].sample, shown))
    return tuple(found)
