"""Run the demo and keep what the README shows of it: its scores, and what sam-tiny sees before and after.

python benchmarks/demo.py    write benchmarks/results/demo.json and docs/pictures/overlays.png, in a minute

`python benchmarks/tables.py` makes the table of the README from the scores.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import RESULTS, ROOT, commit, device_words

from samfit.demo import RECIPE, run_demo
from samfit.files import write_json
from samfit.metrics.protocols import DEFAULT
from samfit.report.overlays import PREDICTION_COLOURS, TRUTH_COLOUR, contact_sheet
from samfit.report.panels import panel_path
from samfit.runs import versions

PICTURE = ROOT / "docs" / "pictures" / "overlays.png"
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
    """Run the demo, and write its scores and the picture."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo"
        write_json(RESULTS / "demo.json", scores_of(run_demo(demo)))
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


def scores_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Dice of each row of what `run_demo` returns, and how it was taken."""
    rows = [
        {
            "method": row["method"] or "zero-shot",
            "trained_parameters": row["trained_parameters"],
            "dice": row["protocols"][DEFAULT.name]["metrics"]["dice"],
        }
        for row in results["rows"]
    ]
    return {
        "recipe": RECIPE,
        "protocol": results["protocols"][DEFAULT.name],
        "images": results["images"],
        "intervals": results["intervals"],
        "device": device_words("cpu"),
        "versions": versions(),
        **commit(),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
