"""Draw the picture of the README: what the demo's images look like to sam-tiny before and after adaptation.

python docs/picture.py    write docs/pictures/overlays.png; takes about a minute
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from samfit.demo import run_demo
from samfit.report.overlays import PREDICTION_COLOURS, TRUTH_COLOUR, contact_sheet
from samfit.report.panels import panel_path

PICTURE = Path(__file__).parent / "pictures" / "overlays.png"
SHOWN = (2, 7, 12, 17)
"""Every fifth test image, by its place."""
ROWS = {
    "truth": "new images, one click each",
    "unadapted": "zero-shot",
    "adapted": "with CAD's adapter, trained on 51 others",
}
"""Panel of a run's pictures to what it is."""
COLOURS = 192
"""Few enough for a small file, and enough that nobody sees it."""


def main() -> None:
    """Run the demo and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo"
        run_demo(demo)
        pictures = demo / "report/runs/sam-tiny-cad-seed0/evaluation/pictures"
        rows = [
            [np.asarray(Image.open(panel_path(pictures, number, panel))) for number in SHOWN]
            for panel in ROWS
        ]
    sheet = contact_sheet(
        rows, list(ROWS.values()), [], [("predicted", PREDICTION_COLOURS[0]), ("truth", TRUTH_COLOUR)]
    )
    PICTURE.parent.mkdir(exist_ok=True)
    # An octree keeps the colours of thin lines, which are rare; a median cut loses them.
    small = Image.fromarray(sheet).quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
