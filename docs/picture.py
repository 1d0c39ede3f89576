"""Draw the picture of the README: new images, and their masks by a run that was trained on others.

python docs/picture.py    write docs/pictures/overlays.png; takes about a minute
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import samfit
from samfit.data.drawn import draw_lesions
from samfit.report.overlays import PREDICTION_COLOURS, TRUTH_COLOUR, contact_sheet, draw_overlay

PICTURE = Path(__file__).parent / "pictures" / "overlays.png"
SHOWN = (61, 66, 72)
"""Numbers of drawn images that the training does not see."""
COLOURS = 192
"""Few enough for a small file, and enough that nobody sees it."""


def main() -> None:
    """Draw a data set, train on it, and write the picture."""
    images, overlays = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "lesions"
        draw_lesions(data)
        backbone = samfit.load_backbone("sam-tiny", weights="random")
        model = samfit.attach(backbone, "cad", classes=("lesion",))
        run = samfit.fit(model, data=data, dataset="isic2016", output=Path(folder) / "run")
        for number in SHOWN:
            part, name = data / "ISBI2016_ISIC_Part1_Test", f"drawn_{number:04d}"
            image = np.asarray(Image.open(f"{part}_Data/{name}.jpg"))
            truth = np.asarray(Image.open(f"{part}_GroundTruth/{name}_Segmentation.png")) > 0
            images.append(image)
            overlays.append(draw_overlay(image, run.predict(image)["lesion"], truth))
    sheet = contact_sheet(
        [images, overlays],
        ["new images", "their masks, by a run that was trained on 60 others"],
        [],
        [("predicted", PREDICTION_COLOURS[0]), ("truth", TRUTH_COLOUR)],
    )
    PICTURE.parent.mkdir(exist_ok=True)
    # An octree keeps the colours of thin lines, which are rare; a median cut loses them.
    small = Image.fromarray(sheet).quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
