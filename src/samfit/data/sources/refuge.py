"""The layout `refuge`: optic disc and cup in fundus photographs, each drawn by several raters."""

import re
from dataclasses import dataclass
from pathlib import Path

from samfit.data.sources.listing import is_image_name, stem_of
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError, SettingError
from samfit.types import Sample

SPLITS = {"train": "Training-400", "validation": "Validation-400", "test": "Test-400"}
CLASSES = ("disc", "cup")
TREE = """\
DATA/
  Training-400/g0001/g0001.jpg
  Training-400/g0001/g0001_seg_disc_1.png   one a rater, as many as there are,
  Training-400/g0001/g0001_seg_cup_1.png    the same number for every image
  Validation-400/…                          (optional)
  Test-400/g0401/g0401.jpg …"""


@dataclass(frozen=True)
class _Eye:
    """One image folder."""

    split: str
    folder: Path
    images: list[Path]
    masks: dict[str, dict[int, Path]]
    """Class to rater number to file."""


def find(request: Request) -> Found:
    """Find the eyes of every split; a sample's masks hold the files of all raters, in their order."""
    if request.values:
        raise SettingError("--mask-values: the classes of refuge have mask files of their own")
    classes = request.choose(CLASSES)
    eyes = [
        _eye(split, folder)
        for split, name in SPLITS.items()
        if (request.folder / name).is_dir()
        for folder in sorted((request.folder / name).iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    if not eyes:
        raise DataError(f"{request.folder}: expected folders in Training-400. The layout is:\n{TREE}")
    raters = {name: sorted({rater for eye in eyes for rater in eye.masks[name]}) for name in classes}
    faults: list[Fault] = []
    samples = []
    for eye in eyes:
        errors = _errors(eye, raters)
        faults += errors
        if not errors:
            masks = {name: tuple(eye.masks[name][rater] for rater in raters[name]) for name in classes}
            samples.append(Sample(stem_of(eye.images[0]), eye.split, eye.images[0], masks))
    return Found(tuple(samples), classes, tuple(faults))


def _eye(split: str, folder: Path) -> _Eye:
    name = folder.name
    mask_name = re.compile(re.escape(name) + r"_seg_(disc|cup)_(\d+)")
    eye = _Eye(split, folder, [], {class_name: {} for class_name in CLASSES})
    for path in sorted(folder.iterdir()):
        if not is_image_name(path.name):
            continue
        if path.stem == name:
            eye.images.append(path)
        elif found := mask_name.fullmatch(path.stem):
            eye.masks[found[1]][int(found[2])] = path
    return eye


def _errors(eye: _Eye, raters: dict[str, list[int]]) -> list[Fault]:
    folder, name = eye.folder, eye.folder.name
    messages = []
    if not eye.images:
        messages.append(f"{folder}: has no image; expected {name}.jpg")
    if len(eye.images) > 1:
        messages.append(f"{' and '.join(map(str, eye.images))}: two images of one name; remove one")
    for class_name, expected in raters.items():
        if not expected:
            messages.append(f"{folder}: has no mask of {class_name}; expected {name}_seg_{class_name}_1.png")
        others = ", ".join(map(str, expected))
        messages += [
            f"{folder}: {class_name} lacks rater {rater}; expected {name}_seg_{class_name}_{rater}.png, "
            f"as other folders have raters {others}"
            for rater in expected
            if rater not in eye.masks[class_name]
        ]
    return [Fault("error", folder, message) for message in messages]


ROW = SourceRow("refuge", "REFUGE: optic disc and cup by several raters", TREE, find)
