"""The layout `cod10k`: camouflaged objects, as COD10K is published."""

from samfit.data.sources.listing import Listing, list_images, match, samples_of
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError

SPLITS = {"train": "Train", "test": "Test"}
MASKS = ("GT_Object", "GT")
"""Folders of masks: of version 3, and of the versions before it."""
WITHOUT_OBJECT = "-NonCAM-"
"""In the names of images that hold no camouflaged object."""
TREE = """\
DATA/
  Train/Image/COD10K-CAM-1-Aquatic-1-BatFish-2.jpg
  Train/GT_Object/COD10K-CAM-1-Aquatic-1-BatFish-2.png   (or Train/GT)
  Test/Image/COD10K-CAM-1-Aquatic-1-BatFish-1.jpg
  Test/GT_Object/COD10K-CAM-1-Aquatic-1-BatFish-1.png"""


def find(request: Request) -> Found:
    """Find the pairs of both splits; the class is `object`, or those of the values.

    Images without camouflaged object are passed over with a note: nobody trains on them or scores them.
    """
    faults: list[Fault] = []
    classes = request.choose(request.values or ("object",))
    samples = []
    for split, name in SPLITS.items():
        place = request.folder / name
        if not (place / "Image").is_dir():
            continue
        masks = next((place / name for name in MASKS if (place / name).is_dir()), place / MASKS[0])
        images = _with_object(list_images(place / "Image", faults), faults)
        drawn = _with_object(list_images(masks, faults), [])
        samples += samples_of(split, match(images, drawn, faults), classes)
    if not samples and not faults:
        raise DataError(f"{request.folder}: expected Train/Image or Test/Image. The layout is:\n{TREE}")
    return Found(tuple(samples), classes, tuple(faults), dict(request.values))


def _with_object(listing: Listing, faults: list[Fault]) -> Listing:
    """Return the files that hold an object; report how many do not."""
    files = {stem: paths for stem, paths in listing.files.items() if WITHOUT_OBJECT not in stem}
    left_out = len(listing.files) - len(files)
    if left_out:
        message = (
            f"{listing.folder}: passed over {left_out} images named {WITHOUT_OBJECT.strip('-')}: no object"
        )
        faults.append(Fault("note", listing.folder, message))
    return Listing(listing.folder, files)


ROW = SourceRow("cod10k", "COD10K: camouflaged objects; its protocol is cod", TREE, find)
