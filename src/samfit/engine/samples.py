"""Sheets of the same validation images as training goes on, so that one sees the model learn."""

from pathlib import Path

from lightning_fabric import Fabric

from samfit.data.batches import ScoredSet
from samfit.engine.scoring import predict_set
from samfit.frame import Frame
from samfit.methods.adapted import AdaptedModel
from samfit.report.overlays import contact_sheet, draw_overlay, legend, write_png

SHOWN = 4
"""Images on a sheet."""


def write_samples(path: Path, model: AdaptedModel, frame: Frame, samples: ScoredSet, fabric: Fabric) -> None:
    """Write image and overlay of the first validation images to `path`."""
    rows, captions = [], []
    for answer in predict_set(model, frame, samples, range(min(SHOWN, len(samples))), 1, fabric):
        item = answer.item
        rows.append([item.image, draw_overlay(item.image, answer.probability() >= 0.5, item.masks >= 0.5)])
        captions.append(item.sample.id)
    write_png(
        path, contact_sheet(rows, captions, ["image", path.stem.replace("_", " ")], legend(model.classes))
    )
