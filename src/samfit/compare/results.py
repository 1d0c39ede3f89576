"""What run folders hold, put together: rows of a table, with intervals, spreads and paired differences."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samfit.compare.jobs import Job
from samfit.metrics import METRICS
from samfit.metrics.intervals import bootstrap_interval, paired_difference, spread_over_seeds
from samfit.metrics.protocols import PROTOCOLS
from samfit.report.scores import GROUP_INTERVALS, INTERVALS
from samfit.runs import RunFolder, versions
from samfit.settings import resolved

PerImage = dict[tuple[str, str], dict[str, list[float]]]
"""Protocol and metric to each image's scores, one a class, in the order of images."""
Values = Mapping[tuple[str, str], NDArray[np.float64]]
"""Protocol and metric to one value an image, the mean over classes."""


@dataclass(frozen=True)
class _Row:
    """Runs that differ in their seed alone."""

    name: str
    label: str
    kind: str
    model: Mapping[str, Any]
    jobs: Sequence[Job]
    unadapted: bool = False
    """Whether the row shows the base models of its runs instead of the runs."""


def collect(
    recipe: Mapping[str, Any],
    jobs: Sequence[Job],
    errors: Mapping[str, str],
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what `results.json` holds.

    `jobs`: in the order of their rows. `errors`: name of a job that failed to what is told of it. `groups`:
    what each scored image belongs to, so that intervals are over groups.
    """
    runs = {job.name: _run(job, errors.get(job.name)) for job in jobs}
    done = {job.name: _scores(job) for job in jobs if runs[job.name]["error"] is None}
    scores = _Scores(done, groups)
    rows = _rows(jobs)
    shown = [_shown(row, rows, runs, scores) for row in rows]
    intervals = INTERVALS if groups is None else GROUP_INTERVALS
    some = next((run for run in runs.values() if run["error"] is None), None)
    return {
        "versions": versions(),
        "recipe": json.loads(json.dumps(recipe, default=str)),
        "data_fingerprint": jobs[0].data_fingerprint,
        "split": jobs[0].evaluate.split,
        "images": None if some is None else some["images"],
        "intervals": f"{intervals}; of several seeds: of each image's mean over them",
        "protocols": {
            name: {"description": PROTOCOLS[name].describe(), "source": PROTOCOLS[name].source}
            for name in jobs[0].evaluate.protocol
        },
        "rows": shown,
        "runs": list(runs.values()),
    }


def _run(job: Job, error: str | None) -> dict[str, Any]:
    """Return what one run found and took."""
    result: dict[str, Any] = {"name": job.name, "kind": job.kind, "seed": job.train.seed, "error": error}
    if error is not None:
        return result
    folder = RunFolder(job.folder)
    summary, scored = _json(folder.summary), _json(folder.evaluation / "summary.json")
    keep = ("best_epoch", "epochs", "steps", "trained_parameters", "peak_bytes", "peak_bytes_are", "seconds")
    result |= {name: summary.get(name) for name in keep}
    result["images"] = scored["images"]
    first = {key: value for key, value in scored.items() if key not in ("other_protocols", "images", "split")}
    result["protocols"] = {first["protocol"]: first, **scored["other_protocols"]}
    result["per_epoch"] = _epochs(folder.metrics)
    metric = next(iter(first["metrics"]))
    result["per_image"] = {"protocol": first["protocol"], "metric": metric} | {
        whose: {image: float(np.mean(values)) for image, values in scores[first["protocol"], metric].items()}
        for whose, scores in _per_image(job).items()
        if scores
    }
    return result


def _epochs(path: Path) -> list[dict[str, float]]:
    """Return loss and validation Dice of each epoch; nothing for what is not trained."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(row[name]) for name in ("epoch", "loss", "validation_dice")}
            for row in csv.DictReader(file)
        ]


def _per_image(job: Job) -> dict[str, PerImage]:
    """Return the scores of the run, and of its base model if it has one."""
    found: dict[str, PerImage] = {"adapted": {}, "unadapted": {}}
    with (RunFolder(job.folder).evaluation / "per_image.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name in METRICS:
                for whose, column in (("adapted", name), ("unadapted", f"unadapted_{name}")):
                    if row.get(column):
                        images = found[whose].setdefault((row["protocol"], name), {})
                        images.setdefault(row["image"], []).append(float(row[column]))
    return found


def _scores(job: Job) -> dict[str, Values]:
    """Return what `_per_image` does as means over classes, without the names of images."""
    return {
        whose: {key: np.array(list(map(np.mean, images.values())), float) for key, images in found.items()}
        for whose, found in _per_image(job).items()
    }


def _rows(jobs: Sequence[Job]) -> list[_Row]:
    """Group runs that differ in their seed alone; put base models before them and what is no SAM last."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(_key(job), []).append(job)
    several_prompts = len({job.train.prompt for job in jobs if job.kind == "run"}) > 1
    rows, bases = [], []
    seen = set()
    for several in groups.values():
        job, train = several[0], several[0].train
        if job.kind == "mean-mask":
            rows.append(_Row("mean-mask", "mean training mask", job.kind, {}, several))
            continue
        if job.kind == "u-net":
            model = {"image_size": train.image_size}
            label = f"U-Net from scratch, {train.image_size} px"
            rows.append(_Row("u-net", label, job.kind, model, several))
            continue
        model = {"backbone": train.backbone, "image_size": train.image_size, "method": train.method}
        where = f"{train.backbone}, {train.image_size} px"
        name = f"{train.backbone}-{train.image_size}-{train.method}"
        rows.append(_Row(name, f"{train.method} on {where}", job.kind, model, several))
        base = train.backbone, train.image_size, train.prompt
        if base not in seen:
            seen.add(base)
            asked = f" (prompt {train.prompt})" if several_prompts else ""
            of_base = {**model, "method": None}
            label = f"{where}, not adapted{asked}"
            name = "-".join(["base", str(train.backbone), str(train.image_size), resolved(train.prompt)])
            bases.append(_Row(name, label, "base", of_base, several, unadapted=True))
    return [*bases, *rows]


def _key(job: Job) -> tuple[Any, ...]:
    if job.kind != "run":
        return (job.kind,)
    return job.kind, job.train.backbone, job.train.image_size, job.train.method


class _Scores:
    """Scores of all runs that are done, and what images they are of."""

    def __init__(self, done: Mapping[str, Mapping[str, Values]], groups: Sequence[str] | None):
        self._done, self._groups = done, groups

    def jobs(self, row: _Row) -> list[Job]:
        """Return those of a row's jobs that are done."""
        return [job for job in row.jobs if job.name in self._done]

    def metric(self, row: _Row, first: _Row | None, protocol: str, name: str) -> dict[str, Any]:
        """Return all that is told of one score of a row. `first`: the row that it is compared with."""
        of_seeds = [float(values.mean()) for values in self._of_seeds(row, protocol, name)]
        base = replace(row, name=f"{row.name}, not adapted", unadapted=True) if row.kind == "run" else None
        return {
            **asdict(bootstrap_interval(self._mean(row, protocol, name), groups=self._groups)),
            "over_seeds": asdict(spread_over_seeds(of_seeds)),
            "to_first": self._difference(row, first, protocol, name),
            "to_base": self._difference(row, base, protocol, name),
        }

    def _of_seeds(self, row: _Row, protocol: str, name: str) -> list[NDArray[np.float64]]:
        whose = "unadapted" if row.unadapted else "adapted"
        return [self._done[job.name][whose][protocol, name] for job in self.jobs(row)]

    def _mean(self, row: _Row, protocol: str, name: str) -> NDArray[np.float64]:
        """Return one value an image: its mean over the seeds."""
        return np.mean(self._of_seeds(row, protocol, name), axis=0)

    def _difference(self, row: _Row, other: _Row | None, protocol: str, name: str) -> dict[str, Any] | None:
        """Return row minus another one, paired by image; None for a row and itself."""
        if other is None or other is row:
            return None
        values = self._mean(row, protocol, name), self._mean(other, protocol, name)
        difference = paired_difference(*values, best=METRICS[name].best, groups=self._groups)
        return {"against": other.name, **asdict(difference)}


def _shown(
    row: _Row, rows: Sequence[_Row], runs: Mapping[str, Mapping[str, Any]], scores: _Scores
) -> dict[str, Any]:
    """Return what `results.json` tells of a row."""
    done = scores.jobs(row)
    cost = [runs[job.name] for job in done]
    first = _first_method(row, rows, scores)
    result: dict[str, Any] = {
        "name": row.name,
        "label": row.label,
        "kind": row.kind,
        **{name: row.model.get(name) for name in ("backbone", "image_size", "method")},
        "runs": [job.name for job in row.jobs],
        "seeds": [job.train.seed for job in done],
        "errors": [f"{job.name}: {runs[job.name]['error']}" for job in row.jobs if job not in done],
        "trained_parameters": 0 if row.unadapted else cost[0]["trained_parameters"] if cost else None,
        "peak_bytes": None if row.unadapted else max((one["peak_bytes"] for one in cost), default=None),
        "seconds": None if row.unadapted or not cost else float(np.mean([one["seconds"] for one in cost])),
        "protocols": {},
    }
    for protocol, taken in cost[0]["protocols"].items() if cost else ():
        result["protocols"][protocol] = {
            "prompt": taken["prompt"],
            "prompt_from_truth": taken["prompt_from_truth"],
            "departures": taken["departures"],
            "metrics": {name: scores.metric(row, first, protocol, name) for name in taken["metrics"]},
        }
    return result


def _first_method(row: _Row, rows: Sequence[_Row], scores: _Scores) -> _Row | None:
    """Return the row of the first method on the same backbone and size, else that of the very first run."""
    firsts = [one for one in rows if one.kind == "run"]
    place = ("backbone", "image_size")
    same = [one for one in firsts if all(one.model[key] == row.model.get(key) for key in place)]
    first = (same or firsts)[0]
    return first if scores.jobs(first) else None


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
