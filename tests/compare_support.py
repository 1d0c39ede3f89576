"""Runs of a comparison that nobody trained: jobs, and files as their runs would have left them."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samfit.compare.jobs import Job, Kind
from samfit.compare.results import collect
from samfit.defaults import resolve
from samfit.files import write_json, write_text
from samfit.metrics.protocols import PROTOCOLS
from samfit.metrics.scores import ImageScore
from samfit.report.scores import Scored, per_image_table, summarise_all
from samfit.runs import RunFolder
from samfit.settings import EvaluateSettings, TrainSettings

IMAGES = tuple(f"image{number}" for number in range(12))
RESULT = (
    "adapter.safetensors",
    "summary.json",
    "metrics.csv",
    "evaluation/summary.json",
    "evaluation/per_image.csv",
)
"""Files that `write_run` writes for a run."""


def job(
    runs: Path, name: str, kind: Kind = "run", protocols: Sequence[str] = ("default",), **train: Any
) -> Job:
    """Return a job on `sam-tiny` at 64 px; `train`: other settings of its training."""
    folder = runs / name
    fixed: dict[str, Any] = {"backbone": "sam-tiny", "weights": "random", "image_size": 64}
    settings = resolve(TrainSettings(data=Path("lesions"), output=folder, **(fixed | train)))
    evaluate = EvaluateSettings(run=folder, protocol=tuple(protocols))
    return Job(name, kind, folder, settings, evaluate, "", (None, None))


def grid(
    runs: Path,
    *,
    backbones: Sequence[str] = ("sam-tiny",),
    methods: Sequence[str] = ("decoder", "cad"),
    seeds: Sequence[int] = (0,),
    protocols: Sequence[str] = ("default",),
) -> list[Job]:
    """Return every job of a recipe, each run called `BACKBONE-METHOD-seedN`, in the order of `compare`."""
    jobs = [
        job(
            runs,
            f"{backbone}-{method}-seed{seed}",
            protocols=protocols,
            backbone=backbone,
            method=method,
            seed=seed,
            prompt="full-box",
        )
        for backbone in backbones
        for method in methods
        for seed in seeds
    ]
    jobs.append(job(runs, "mean-mask", "mean-mask", protocols))
    return [*jobs, *(job(runs, f"u-net-seed{seed}", "u-net", protocols, seed=seed) for seed in seeds)]


def adapted(job: Job, classes: int = 1) -> NDArray[np.float64]:
    """Return every score of a job that `write_run` writes, (images, classes)."""
    return _drawn(job.name, classes)


def unadapted(job: Job, classes: int = 1) -> NDArray[np.float64]:
    """Return the same of its base model, which all runs on that with one seed share."""
    return _drawn(f"{job.train.backbone} {job.train.seed}", classes)


def _drawn(name: str, classes: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(200_000, 900_000, (len(IMAGES), classes)) / 1e6  # files have six digits


def write_run(job: Job, classes: Sequence[str] = ("lesion",), torch: str = "2.0") -> None:
    """Write what a job leaves that is done. `torch`: the version it says it was made with."""
    folder = RunFolder(job.folder)
    cost = {"trained_parameters": 7, "peak_bytes": 2**30, "peak_bytes_are": "resident in the process"}
    write_json(folder.summary, cost | {"seconds": 1.5, "versions": {"torch": torch}})
    if job.kind == "run":
        write_text(folder.adapter, job.name)
    if job.kind != "mean-mask":
        write_text(folder.metrics, "epoch,loss,protocol,validation_dice\n1,0.7,default,0.5\n")
    scored = [
        Scored(
            protocol=PROTOCOLS[name],
            prompt=str(job.train.prompt),
            prompt_class=None,
            departures=(),
            adapted=_scores(name, adapted(job, len(classes))),
            unadapted=_scores(name, unadapted(job, len(classes))) if job.kind == "run" else None,
        )
        for name in job.evaluate.protocol
    ]
    write_text(folder.evaluation / "per_image.csv", per_image_table(scored, classes))
    write_json(folder.evaluation / "summary.json", {"split": "test", **summarise_all(scored, classes, None)})
    job.finish()


def _scores(protocol: str, values: NDArray[np.float64]) -> list[ImageScore]:
    nothing = (False,) * values.shape[1]
    metrics = PROTOCOLS[protocol].metrics
    return [
        ImageScore(image, dict.fromkeys(metrics, tuple(row.tolist())), nothing, nothing)
        for image, row in zip(IMAGES, values, strict=True)
    ]


def results_of(jobs: Sequence[Job], failed: Sequence[str] = (), **run: Any) -> dict[str, Any]:
    """Return the results of jobs, of which those that are named have failed; `run`: as for `write_run`."""
    for one in jobs:
        if one.name not in failed:
            write_run(one, **run)
    results = collect({}, jobs, dict.fromkeys(failed, "out of memory"), len(IMAGES))
    return json.loads(json.dumps(results, allow_nan=False))


def row_of(results: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a row by its name."""
    return next(row for row in results["rows"] if row["name"] == name)
