"""The layout `istd`: shadows in photographs, as ISTD is published."""

from samfit.data.sources.listing import list_images, match, samples_of
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError

SPLITS = ("train", "test")
TREE = """\
DATA/
  train/train_A/1-1.png   the photograph
  train/train_B/1-1.png   the mask of the shadow; train_C, without shadow, is not used
  test/test_A/91-1.png
  test/test_B/91-1.png"""


def find(request: Request) -> Found:
    """Find the pairs of both splits; the class is `shadow`, or those of the values."""
    faults: list[Fault] = []
    classes = request.choose(request.values or ("shadow",))
    samples = []
    for split in SPLITS:
        images, masks = (request.folder / split / f"{split}_{letter}" for letter in "AB")
        if images.is_dir():
            pairs = match(list_images(images, faults), list_images(masks, faults), faults)
            samples += samples_of(split, pairs, classes)
    if not samples and not faults:
        raise DataError(f"{request.folder}: expected train/train_A or test/test_A. The layout is:\n{TREE}")
    return Found(tuple(samples), classes, tuple(faults), dict(request.values))


ROW = SourceRow("istd", "ISTD: shadows in photographs; its protocol is istd", TREE, find)
