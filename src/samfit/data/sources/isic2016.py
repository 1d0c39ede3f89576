"""The layout `isic2016`: part 1 of the ISIC challenge of 2016, lesions in dermoscopic images.

Two CSV files list the pairs; where one is missing, `<id>.jpg` is paired with `<id>_Segmentation.png`.
"""

import csv
from pathlib import Path

from samfit.data.sources.listing import is_image_name, list_images, match, samples_of, stem_of
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError

PREFIX = "ISBI2016_ISIC_Part1"
SPLITS = {"train": "Training", "test": "Test"}
MASK_SUFFIX = "_Segmentation"
TREE = """\
DATA/
  ISBI2016_ISIC_Part1_Training_GroundTruth.csv   (optional; columns: number, image, mask)
  ISBI2016_ISIC_Part1_Training_Data/ISIC_0000000.jpg
  ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_0000000_Segmentation.png
  ISBI2016_ISIC_Part1_Test_GroundTruth.csv
  ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg
  ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png"""


def find(request: Request) -> Found:
    """Find the pairs of both splits; the class is `lesion`, or those of the values."""
    faults: list[Fault] = []
    classes = request.choose(request.values or ("lesion",))
    samples = []
    for split, name in SPLITS.items():
        images, masks = (request.folder / f"{PREFIX}_{name}_{kind}" for kind in ("Data", "GroundTruth"))
        table = request.folder / f"{PREFIX}_{name}_GroundTruth.csv"
        if table.is_file():
            pairs = _listed(table, images, masks, faults)
        elif images.is_dir():
            pairs = match(list_images(images, faults), list_images(masks, faults, MASK_SUFFIX), faults)
        else:
            continue
        samples += samples_of(split, pairs, classes)
    if not samples and not faults:
        raise DataError(
            f"{request.folder}: expected {PREFIX}_Training_Data and its GroundTruth. The layout is:\n{TREE}"
        )
    return Found(tuple(samples), classes, tuple(faults), dict(request.values))


def _listed(table: Path, images: Path, masks: Path, faults: list[Fault]) -> dict[str, tuple[Path, Path]]:
    """Return the pairs that the CSV names; every row that cannot be used is an error."""
    pairs: dict[str, tuple[Path, Path]] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a byte-order mark
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        faults.append(Fault("error", table, f"{table}: not a CSV file in UTF-8 ({error})"))
        return pairs
    except OSError as error:
        faults.append(Fault("error", table, f"{table}: cannot be read: {error.strerror}"))
        return pairs
    if lines and not any(is_image_name(Path(cell).name) for cell in lines[0][1]):
        lines = lines[1:]  # the header
    for number, (line, row) in enumerate(lines, start=1):
        where = f"{table}: row {number} (line {line})"
        if len(row) != 3 or not all(cell.strip() for cell in row[1:]):
            found = ",".join(row)
            message = f"{where}: expected three columns (number, image, mask), found '{found}'"
            faults.append(Fault("error", table, message))
            continue
        image, mask = (
            _locate(cell.strip(), table.parent, folder)
            for cell, folder in zip(row[1:], (images, masks), strict=True)
        )
        missing = [cell for cell, path in zip(row[1:], (image, mask), strict=True) if path is None]
        if image is None or mask is None:
            names = " and ".join(missing)
            message = f"{where} names {names}: not found in {table.parent} or its folders"
            faults.append(Fault("error", table, message))
        elif stem_of(image) in pairs:
            faults.append(
                Fault("error", table, f"{where} names {row[1]}, as an earlier row does; remove one")
            )
        else:
            pairs[stem_of(image)] = (image, mask)
    if not lines:
        faults.append(Fault("error", table, f"{table}: the file lists no image"))
    return pairs


def _locate(cell: str, data: Path, folder: Path) -> Path | None:
    """Return the file that a cell names, relative to the data folder or to the folder of its kind."""
    relative = cell.replace("\\", "/")
    return next((path for path in (data / relative, folder / relative) if path.is_file()), None)


ROW = SourceRow(
    "isic2016", "ISIC 2016 part 1: skin lesions, listed in CSV files or paired by name", TREE, find
)
