"""Names of the small pictures that are kept of every image of an evaluation."""

from pathlib import Path

PANELS = ("image", "truth", "unadapted", "adapted", "errors")
"""What is drawn of each image; `errors` are those of `adapted`."""


def panel_path(folder: Path, number: int, panel: str) -> Path:
    """Return where a picture lies; images are numbered from 1, in the order of `per_image.csv`."""
    return folder / f"{number:05d}_{panel}.jpg"
