"""Listing folders of images and masks, and pairing the two by the stems of their names."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from samfit.data.sources.row import Fault
from samfit.types import Sample

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)


@dataclass(frozen=True)
class Listing:
    """The images of one folder."""

    folder: Path
    files: dict[str, list[Path]]
    """Stem (Unicode NFC, without `suffix`) to the files that have it: more than one is a fault."""
    suffix: str = ""
    """What ends every stem in this folder: masks `x_Segmentation.png` have the stem `x`."""


def is_image_name(name: str) -> bool:
    """Whether a name, not hidden, has the extension of an image, in upper or lower case."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def stem_of(path: Path) -> str:
    """Return the name without its last extension in Unicode NFC; macOS stores names decomposed (NFD)."""
    return unicodedata.normalize("NFC", path.stem)


def _is_text(name: str) -> bool:
    """Whether a name can be written to tables and reports; Linux allows any bytes in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_images(folder: Path, faults: list[Fault], suffix: str = "") -> Listing:
    """List the images of `folder`, which may be missing or empty (an error each).

    Hidden files and those with other extensions are passed over with a note.
    """
    files: dict[str, list[Path]] = {}
    if not folder.is_dir():
        faults.append(Fault("error", folder, f"{folder}: there is no such folder"))
        return Listing(folder, files, suffix)
    passed_over = []
    for path in sorted(folder.iterdir()):
        stem = stem_of(path)
        if not _is_text(path.name):
            message = f"{folder}: the name {os.fsencode(path.name)!r} is not UTF-8; rename the file"
            faults.append(Fault("error", folder, message))
        elif path.is_file() and is_image_name(path.name) and stem.endswith(suffix):
            files.setdefault(stem.removesuffix(suffix), []).append(path)
        else:
            passed_over.append(path.name)
    if passed_over:
        names = ", ".join(passed_over[:5]) + (" …" if len(passed_over) > 5 else "")
        message = f"{folder}: passed over {names} ({len(passed_over)}): hidden, or not named as an image"
        faults.append(Fault("note", folder, message))
    if not files:
        faults.append(Fault("error", folder, f"{folder}: the folder holds no image"))
    return Listing(folder, files, suffix)


def match(images: Listing, masks: Listing, faults: list[Fault]) -> dict[str, tuple[Path, Path]]:
    """Pair images and masks of the same stem: stem to (image, mask).

    Faults: two files of one stem, an image without mask (errors), a mask without image (a warning).
    """
    for listing in (images, masks):
        for stem, paths in listing.files.items():
            if len(paths) > 1:
                names = " and ".join(map(str, paths))
                message = f"{names}: have the same stem '{stem}'; rename all but one"
                faults.append(Fault("error", paths[0], message))
    explained: set[str] = set()
    if masks.files:  # an empty folder has been reported already
        for stem in sorted(images.files.keys() - masks.files.keys()):
            lookalikes = _lookalikes(stem, images, masks)
            explained.update(lookalikes)
            faults.append(_maskless(images.files[stem][0], masks, stem, lookalikes))
    for stem in sorted(masks.files.keys() - images.files.keys() - explained):
        path = masks.files[stem][0]
        message = f"{path}: a mask without image; expected {images.folder / stem} with .jpg, .png or alike"
        faults.append(Fault("warning", path, message))
    return {
        stem: (paths[0], masks.files[stem][0])
        for stem, paths in images.files.items()
        if len(paths) == 1 and len(masks.files.get(stem, ())) == 1
    }


def samples_of(split: str, pairs: dict[str, tuple[Path, Path]], classes: tuple[str, ...]) -> list[Sample]:
    """Return samples of pairs in order of their stems; all classes share the one mask."""
    return [
        Sample(stem, split, image, dict.fromkeys(classes, (mask,)))
        for stem, (image, mask) in sorted(pairs.items())
    ]


def _lookalikes(stem: str, images: Listing, masks: Listing) -> list[str]:
    """Return the stems of masks that only add something to `stem` and belong to no other image."""
    added = (stem + "_", stem + "-")
    return [name for name in masks.files if name.startswith(added) and name not in images.files]


def _maskless(image: Path, masks: Listing, stem: str, lookalikes: list[str]) -> Fault:
    expected = masks.folder / f"{stem}{masks.suffix}.png"
    message = f"{image}: has no mask; expected {expected} (or .tif, .jpg and alike)"
    if lookalikes:
        found = masks.files[lookalikes[0]][0]
        suffix = lookalikes[0].removeprefix(stem)
        message += f"; no mask has its stem, but {found} adds '{suffix}': rename masks without it"
    return Fault("error", image, message)
