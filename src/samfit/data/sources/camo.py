"""The layout `camo`: camouflaged objects, as CAMO is published, all masks in one folder."""

from samfit.data.sources.listing import Listing, list_images, match, samples_of
from samfit.data.sources.row import Fault, Found, Request, SourceRow
from samfit.errors import DataError

SPLITS = {"train": "Train", "test": "Test"}
TREE = """\
DATA/
  Images/Train/camourflage_00001.jpg
  Images/Test/camourflage_00012.jpg
  GT/camourflage_00001.png   the masks of both splits
  GT/camourflage_00012.png"""


def find(request: Request) -> Found:
    """Find the pairs of both splits; the class is `object`, or those of the values."""
    faults: list[Fault] = []
    classes = request.choose(request.values or ("object",))
    places = {split: request.folder / "Images" / name for split, name in SPLITS.items()}
    images = {split: list_images(place, faults) for split, place in places.items() if place.is_dir()}
    if not images:
        raise DataError(f"{request.folder}: expected Images/Train or Images/Test. The layout is:\n{TREE}")
    masks = list_images(request.folder / "GT", faults)
    samples, left = [], dict(masks.files)
    for number, (split, listing) in enumerate(images.items(), start=1):
        last = number == len(images)  # which is left with the masks that have no image
        own = {stem: masks.files[stem] for stem in masks.files if stem in listing.files}
        left = {stem: paths for stem, paths in left.items() if stem not in own}
        pairs = match(listing, Listing(masks.folder, own | left if last else own), faults)
        samples += samples_of(split, pairs, classes)
    return Found(tuple(samples), classes, tuple(faults), dict(request.values))


ROW = SourceRow("camo", "CAMO: camouflaged objects; its protocol is cod", TREE, find)
