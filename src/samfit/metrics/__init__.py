"""The table of metrics. Importing it, or the protocols beside it, loads neither torch nor numpy."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from samfit.packages import is_installed, require_packages


@dataclass(frozen=True)
class MetricRow:
    """One metric: what it is, where it comes from, and what it is computed from."""

    name: str
    title: str
    """What tables call it."""
    summary: str
    paper: str
    best: Literal["highest", "lowest"]
    """Which score is the best one."""
    empty: str
    """What it is where the truth has no foreground."""
    kind: Literal["counts", "maps", "surfaces"]
    """What it compares: pixels of two masks that are counted, probabilities with a mask, or the borders of
    two masks. The function of that name is in the module of this name."""
    packages: tuple[str, ...] = ()
    """Modules of the extra `metrics` that it needs."""


METRICS: Mapping[str, MetricRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            MetricRow(
                name="dice",
                title="Dice",
                summary="twice the overlap by the sum of both areas, 0 to 1",
                paper="Dice 1945",
                best="highest",
                empty="1 if both are empty, 0 if one is",
                kind="counts",
            ),
            MetricRow(
                name="iou",
                title="IoU",
                summary="overlap by union, 0 to 1; its mean over images is what papers call mIoU",
                paper="Jaccard 1912",
                best="highest",
                empty="1 if both are empty, 0 if one is",
                kind="counts",
            ),
            MetricRow(
                name="ber",
                title="BER",
                summary="balanced error rate, 0 to 1: the mean of missed foreground and of background taken "
                "for it; papers print it in percent",
                paper="Vicente et al., ECCV 2016",
                best="lowest",
                empty="the error rate of the background",
                kind="counts",
            ),
            MetricRow(
                name="s_measure",
                title="S-measure",
                summary="likeness of structure, of object and of regions, 0 to 1",
                paper="arXiv 1708.00786",
                best="highest",
                empty="1 - mean probability",
                kind="maps",
                packages=("py_sod_metrics",),
            ),
            MetricRow(
                name="e_measure",
                title="E-measure",
                summary="enhanced alignment, mean over 256 thresholds, 0 to 1",
                paper="arXiv 1805.10421",
                best="highest",
                empty="the share below the threshold",
                kind="maps",
                packages=("py_sod_metrics",),
            ),
            MetricRow(
                name="weighted_f",
                title="weighted F",
                summary="F-measure in which errors count by their place, 0 to 1",
                paper="Margolin et al., CVPR 2014",
                best="highest",
                empty="0",
                kind="maps",
                packages=("py_sod_metrics",),
            ),
            MetricRow(
                name="mae",
                title="MAE",
                summary="mean absolute difference of probability and mask, 0 to 1",
                paper="Perazzi et al., CVPR 2012",
                best="lowest",
                empty="the mean probability",
                kind="maps",
            ),
            MetricRow(
                name="hd95",
                title="HD95",
                summary="95 % Hausdorff distance of the borders, in pixels or in the unit of --spacing",
                paper="Huttenlocher et al., PAMI 1993",
                best="lowest",
                empty="0 if both are empty, the diagonal of the image if one is",
                kind="surfaces",
                packages=("monai", "scipy"),
            ),
            MetricRow(
                name="surface_dice",
                title="surface Dice",
                summary="share of both borders that lies within --tolerance of the other, 0 to 1",
                paper="arXiv 1809.04430",
                best="highest",
                empty="1 if both are empty, 0 if one is",
                kind="surfaces",
                packages=("monai", "scipy"),
            ),
        )
    }
)
"""Every metric by its name."""

SURFACES = tuple(row.name for row in METRICS.values() if row.kind == "surfaces")
"""The metrics that `--surface` asks for."""


def require_metrics(names: Iterable[str]) -> None:
    """Raise `SettingError` if a metric needs a package that is not installed."""
    rows = [
        METRICS[name] for name in dict.fromkeys(names) if not all(map(is_installed, METRICS[name].packages))
    ]
    titles = ", ".join(row.title for row in rows)
    require_packages(titles, (package for row in rows for package in row.packages))


def metric_function(name: str) -> Callable[..., Any]:
    """Return the function of a metric; its module says what it takes."""
    return getattr(import_module(f"samfit.metrics.{METRICS[name].kind}"), name)
