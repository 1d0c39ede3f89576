"""The layout `folder`: images and masks in folders of their own, paired by the stems of their names."""

from pathlib import Path

from samfit.data.sources.listing import is_image_name, list_images, match
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError, SettingError
from samfit.types import Sample

SPLITS = ("train", "validation", "test")
TREE = """\
DATA/
  train/images/001.jpg
  train/masks/001.png
  validation/images/…   (optional; else a part of train is held back)
  validation/masks/…
  test/images/002.jpg
  test/masks/002.png
or, all of it for training: DATA/images/001.jpg, DATA/masks/001.png
several classes: train/masks/CLASS/001.png, or one grey value each with --mask-values"""


def find(request: Request) -> Found:
    """Find the pairs of every split; classes are `foreground`, those of the values or of the folders."""
    faults: list[Fault] = []
    splits = _splits(request.folder, faults)
    folders = _class_folders(splits)
    if folders and request.values:
        raise SettingError(
            f"--mask-values: masks in {request.folder} have a folder a class already: {', '.join(folders)}"
        )
    classes = request.choose(folders or request.values or ("foreground",))
    samples = []
    for split, place in splits.items():
        images = list_images(place / "images", faults)
        masks: dict[str, dict[str, tuple[Path, ...]]] = {}
        found: dict[str, Path] = {}
        for name in classes if folders else classes[:1]:
            folder = place / "masks" / name if folders else place / "masks"
            for stem, (image, mask) in match(images, list_images(folder, faults), faults).items():
                found[stem] = image
                masks.setdefault(stem, {}).update(dict.fromkeys([name] if folders else classes, (mask,)))
        samples += [
            Sample(stem, split, found[stem], masks[stem])
            for stem in sorted(found)
            if len(masks[stem]) == len(classes)
        ]
    return Found(tuple(samples), classes, tuple(faults), dict(request.values))


def _splits(folder: Path, faults: list[Fault]) -> dict[str, Path]:
    """Return split to its folder, in the order of `SPLITS`."""
    splits = {name: folder / name for name in SPLITS if (folder / name).is_dir()}
    if not splits and (folder / "images").is_dir():
        return {"train": folder}
    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in splits)
    if not splits:
        found = ", ".join(others) or "no folder"
        raise DataError(
            f"{folder}: expected train/images and train/masks, or images and masks; found {found}. "
            "Another layout is chosen with --dataset; this one is:\n" + TREE
        )
    if others:
        names = ", ".join(others)
        message = f"{folder}: passed over {names}; splits are {', '.join(SPLITS)}"
        faults.append(Fault("note", folder, message))
    return splits


def _class_folders(splits: dict[str, Path]) -> tuple[str, ...]:
    """Return the names of folders inside the masks folders, if these hold folders and no masks."""
    inside = [
        path
        for place in splits.values()
        if (place / "masks").is_dir()
        for path in (place / "masks").iterdir()
        if not path.name.startswith(".")
    ]
    if any(path.is_file() and is_image_name(path.name) for path in inside):
        return ()
    return tuple(sorted({path.name for path in inside if path.is_dir()}))


ROW = SourceRow("folder", "images/ and masks/ paired by name, in train/ and test/", TREE, find)
