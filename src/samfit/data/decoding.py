"""One image file to one array of known type, range and channel order; every broken file to one `DataError`.

Images and masks both come through here, so that both are turned upright by the same rule. Pillow decodes,
because it notices files that are cut off and refuses decompression bombs; cv2 only re-reads colour files of
16 bits a channel, which Pillow reduces to 8 bits without a word.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from samfit.errors import DataError

Pixels = NDArray[np.unsignedinteger]
"""8 or 16 bits."""

# Named one by one: among all that Pillow knows are formats without a signature, which would take a text
# file for an image, and EPS, which starts another program.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF")

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}
_COLOURS = {
    "1": "grey",
    "L": "grey",
    "I": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "RGBA": "RGB with alpha",
}
"""What modes of Pillow are called, where their name is not that of their colours."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of a file, upright, as raw as they can be compared."""

    pixels: Pixels
    """(H, W) grey values or palette indexes, or (H, W, 3) RGB with alpha laid over black."""
    top: int
    """Largest value that the type of the file can hold: 1, 255 or 65535."""
    palette: NDArray[np.uint8] | None
    """(256, 3) RGB of each index, alpha laid over black, or None if pixels are no indexes."""
    lossy: bool
    """Whether the file is a JPEG, whose values are near what was saved, not equal to it."""
    kind: str
    """Colours and bits a channel of the file itself: `RGB, 8 bit`, `grey, 16 bit`, `palette, 8 bit`."""


def decode(path: Path, page: int | None = None) -> Decoded:
    """Read `path` by its content, whatever its extension.

    `page`: which page or frame of a file that has several, from 0; files of one page are read as they are.
    Raises `DataError` if the file is missing, empty, no image, cut off, larger than Pillow's limit for
    decompression bombs, has several pages and no `page` chooses one, or holds other than 8 or 16 bits.
    """
    with _opened(path, page) as image:
        deep = _is_deep_colour(image)
        image.load()
        pixels, top, palette = (_deep_colour(path, image.tell()), 65535, None) if deep else _raw(image, path)
        # Read after load(): Pillow and cv2 both turn a TIFF by themselves, and then Pillow drops the tag.
        upright = _UPRIGHT.get(_orientation(image), lambda same: same)
        lossy = image.format in ("JPEG", "MPO")
        return Decoded(np.ascontiguousarray(upright(pixels)), top, palette, lossy, _kind(image.mode, top))


def decoded_size(path: Path, page: int | None = None) -> tuple[int, int]:
    """Return (height, width) of the upright image from its header, without decoding it.

    Raises `DataError` as `decode` does for what the header shows.
    """
    with _opened(path, page) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) >= 5  # Pillow gives a TIFF's size upright
        return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(path: Path, page: int | None) -> Iterator[Image.Image]:
    """Yield the opened file at its page; whatever fails inside becomes a `DataError` that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does no harm to pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _choose_page(image, path, page)
                yield image
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: {_what_it_is(path)}") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        raise DataError(
            f"{path}: the file is cut off or damaged ({error}); copy or download it again"
        ) from error


def _choose_page(image: Image.Image, path: Path, page: int | None) -> None:
    # The further frames of an MPO, as phones write it, are previews of the first.
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages == 1:
        return
    if page is None:
        raise DataError(f"{path}: has {pages} pages or frames; choose one with --page (0 to {pages - 1})")
    if page >= pages:
        raise DataError(f"{path}: has {pages} pages or frames, --page {page} is beyond 0 to {pages - 1}")
    image.seek(page)


def _too_large(path: Path) -> str:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # only to read the size from the header again, for the message
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return (
        f"{path}: its header says {width} x {height} pixels, more than the {limit} that are safe to decode; "
        "cut it into tiles or reduce it"
    )


def _what_it_is(path: Path) -> str:
    """Say what a file that is no image holds, as far as its first bytes show it."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "the file is empty (0 bytes); copy or download it again"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "not an image but an HTML page, as a failed download leaves it; download it again"
    kind = (
        "a text file" if all(byte >= 32 or byte in b"\t\r\n" for byte in head) else "an unknown kind of file"
    )
    return f"not an image but {kind} (known: {', '.join(FORMATS)})"


def _kind(mode: str, top: int) -> str:
    """Say what a mode of Pillow and the largest value of a file mean."""
    mode = mode.partition(";")[0]
    return f"{_COLOURS.get(mode, mode)}, {top.bit_length()} bit"


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a colour file, not loaded yet, holds 16 bits a channel, which Pillow would reduce to 8."""
    if image.mode.startswith("I"):
        return False
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _deep_colour(path: Path, page: int) -> Pixels:
    """Read a colour file of 16 bits a channel that Pillow has decoded, so that it is known to be whole."""
    content = np.fromfile(path, np.uint8)
    if page:
        decoded = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1][0]
    else:
        decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise DataError(f"{path}: 16 bits a channel in a form that is not known; save it as PNG")
    pixels = decoded.astype(np.uint16)
    if pixels.shape[2] == 4:
        return _over_black(pixels[..., [2, 1, 0, 3]])
    return pixels[..., ::-1]


def _raw(image: Image.Image, path: Path) -> tuple[Pixels, int, NDArray[np.uint8] | None]:
    """Return the pixels of a loaded file as stored, the top of their type, and the palette."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        return np.asarray(image).astype(np.uint16), 65535, None
    if mode in ("I", "F"):
        kind = "floats" if mode == "F" else "signed or 32-bit integers"
        raise DataError(f"{path}: its pixels are {kind}, whose range is not known; save it with 8 or 16 bits")
    if mode == "P":
        return np.array(image), 255, _palette(image)
    if image.has_transparency_data:
        return _over_black(np.asarray(image.convert("RGBA"))), 255, None
    if mode == "1":
        return np.asarray(image).astype(np.uint8), 1, None
    return np.array(image if mode == "L" else image.convert("RGB")), 255, None


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    """Return the (256, 3) colours of a palette image over black; indexes beyond its palette are black."""
    strip = Image.new("P", (1, 1))
    strip.putpalette(image.palette or b"")
    strip.info = {key: value for key, value in image.info.items() if key == "transparency"}
    strip.apply_transparency()
    colours = np.array(strip.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
    padded = np.pad(colours, ((0, 256 - len(colours)), (0, 0)))
    return _over_black(padded[None])[0].astype(np.uint8)


def _over_black(pixels: Pixels) -> Pixels:
    """Lay (H, W, 4) RGBA over black: (H, W, 3), each channel times alpha, rounded."""
    top = int(np.iinfo(pixels.dtype).max)
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    return ((colour * alpha + top // 2) // top).astype(pixels.dtype)  # 65535² still fits in 32 bits
