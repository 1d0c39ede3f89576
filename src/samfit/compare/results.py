"""What run folders hold, put together: rows of a table, with intervals, spreads and paired differences."""

import csv
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samfit.compare.jobs import Job
from samfit.metrics import METRICS
from samfit.metrics.intervals import bootstrap_interval, paired_difference, spread_over_seeds
from samfit.metrics.protocols import PROTOCOLS
from samfit.report.scores import intervals_of
from samfit.runs import RunFolder
from samfit.settings import resolved

PerImage = dict[tuple[str, str], dict[str, float]]
"""Protocol and metric to each image's score, the mean over classes, in the order of images."""


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
    every_seed: bool = False
    """Whether its one run stands for every seed."""


def collect(
    recipe: Mapping[str, Any],
    jobs: Sequence[Job],
    errors: Mapping[str, str],
    images: int,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what `results.json` holds.

    `jobs`: in the order of their rows. `errors`: name of a job that failed to what is told of it. `images`:
    how many are scored. `groups`: what each of them belongs to, so that intervals are over groups.
    """
    done = {job.name: _per_image(job) for job in jobs if job.name not in errors}
    runs = {job.name: _run(job, errors.get(job.name), done.get(job.name)) for job in jobs}
    scores = _Scores(done, groups)
    rows = _rows(jobs, done)
    shown = [_shown(row, rows, runs, scores) for row in rows]
    return {
        "versions": _versions(runs.values()),
        "recipe": json.loads(json.dumps(recipe, default=str)),
        "data_fingerprint": jobs[0].data_fingerprint,
        "split": jobs[0].evaluate.split,
        "images": images,
        "intervals": f"{intervals_of(groups)}; of several seeds: of each image's mean over them",
        "protocols": {
            name: {"description": PROTOCOLS[name].describe(), "source": PROTOCOLS[name].source}
            for name in jobs[0].evaluate.protocol
        },
        "rows": shown,
        "runs": list(runs.values()),
    }


def _versions(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the versions that the runs were made with, by package: several where they differ."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, version in run.get("versions", {}).items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return found


def _run(job: Job, error: str | None, found: Mapping[str, PerImage] | None) -> dict[str, Any]:
    """Return what one run found and took. `found`: what `_per_image` returns for it, None if it failed."""
    result: dict[str, Any] = {"name": job.name, "kind": job.kind, "seed": job.train.seed, "error": error}
    if found is None:
        return result
    folder = RunFolder(job.folder)
    summary, scored = _json(folder.summary), _json(folder.evaluation / "summary.json")
    keep = ("best_epoch", "epochs", "steps", "trained_parameters", "peak_bytes", "peak_bytes_are", "seconds")
    result |= {name: summary.get(name) for name in (*keep, "versions")}
    result["images"] = scored["images"]
    first = {key: value for key, value in scored.items() if key not in ("other_protocols", "images", "split")}
    result["protocols"] = {first["protocol"]: first, **scored["other_protocols"]}
    result["per_epoch"] = _epochs(folder.metrics)
    metric = next(iter(first["metrics"]))
    result["per_image"] = {"protocol": first["protocol"], "metric": metric} | {
        whose: scores[first["protocol"], metric] for whose, scores in found.items() if scores
    }
    return result


def _epochs(path: Path) -> list[dict[str, Any]]:
    """Return loss and validation Dice of each epoch, by its protocol; nothing for what is not trained."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(row[name]) for name in ("epoch", "loss", "validation_dice")}
            | {"protocol": row["protocol"]}
            for row in csv.DictReader(file)
        ]


def _per_image(job: Job) -> dict[str, PerImage]:
    """Return the scores of the run, and of its base model if it has one."""
    of_classes: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = {"adapted": {}, "unadapted": {}}
    with (RunFolder(job.folder).evaluation / "per_image.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name in METRICS:
                for whose, column in (("adapted", name), ("unadapted", f"unadapted_{name}")):
                    if row.get(column):
                        images = of_classes[whose].setdefault((row["protocol"], name), {})
                        images.setdefault(row["image"], []).append(float(row[column]))
    return {
        whose: {
            key: {image: float(np.mean(values)) for image, values in images.items()}
            for key, images in scores.items()
        }
        for whose, scores in of_classes.items()
    }


def _rows(jobs: Sequence[Job], done: Container[str]) -> list[_Row]:
    """Group runs that differ in their seed alone; put base models before them and what is no SAM last."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(_key(job), []).append(job)
    of_bases: dict[tuple[Any, ...], list[Job]] = {}
    rows = []
    for several in groups.values():
        job, train = several[0], several[0].train
        if job.kind == "mean-mask":
            rows.append(_Row("mean-mask", "mean training mask", job.kind, {}, several, every_seed=True))
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
        of_bases.setdefault((train.backbone, train.image_size, train.prompt), []).extend(several)
    several_prompts = len({prompt for *_, prompt in of_bases}) > 1
    bases = [
        _base(f"{backbone}, {size} px, not adapted" + f" (prompt {prompt})" * several_prompts, several, done)
        for (backbone, size, prompt), several in of_bases.items()
    ]
    return [*bases, *rows]


def _base(label: str, jobs: Sequence[Job], done: Container[str]) -> _Row:
    """Return the row of a base model, whose scores lie in the files of every run on it.

    Of each seed the first run that is done is taken, or one that failed if all did.
    """
    seeds = dict.fromkeys(job.train.seed for job in jobs)
    chosen = [
        min((job for job in jobs if job.train.seed == seed), key=lambda job: job.name not in done)
        for seed in seeds
    ]
    train = jobs[0].train
    model = {"backbone": train.backbone, "image_size": train.image_size, "method": None}
    name = "-".join(["base", str(train.backbone), str(train.image_size), resolved(train.prompt)])
    return _Row(name, label, "base", model, chosen, unadapted=True)


def _key(job: Job) -> tuple[Any, ...]:
    if job.kind != "run":
        return (job.kind,)
    return job.kind, job.train.backbone, job.train.image_size, job.train.method


class _Scores:
    """Scores of all runs that are done, and what images they are of."""

    def __init__(self, done: Mapping[str, Mapping[str, PerImage]], groups: Sequence[str] | None):
        self._done, self._groups = done, groups

    def jobs(self, row: _Row) -> list[Job]:
        """Return those of a row's jobs that are done."""
        return [job for job in row.jobs if job.name in self._done]

    def metric(self, row: _Row, first: _Row, protocol: str, name: str) -> dict[str, Any]:
        """Return all that is told of one score of a row. `first`: the row that it is compared with."""
        of_seeds = self._of_seeds(row, protocol, name)
        base = replace(row, name=f"{row.name}, not adapted", unadapted=True) if row.kind == "run" else None
        return {
            **asdict(bootstrap_interval(_mean(of_seeds.values()), groups=self._groups)),
            "over_seeds": asdict(spread_over_seeds([float(one.mean()) for one in of_seeds.values()])),
            "to_first": self._difference(row, first, protocol, name),
            "to_base": self._difference(row, base, protocol, name),
        }

    def _of_seeds(self, row: _Row, protocol: str, name: str) -> dict[int, NDArray[np.float64]]:
        """Return one value an image by seed."""
        whose = "unadapted" if row.unadapted else "adapted"
        found = {job.train.seed: self._done[job.name][whose][protocol, name] for job in self.jobs(row)}
        return {seed: np.array(list(images.values())) for seed, images in found.items()}

    def _difference(self, row: _Row, other: _Row | None, protocol: str, name: str) -> dict[str, Any] | None:
        """Return row minus another one, paired by image, over the seeds that both have.

        None for a row and itself, and if there is no such seed.
        """
        if other is None or other is row:
            return None
        one, two = self._of_seeds(row, protocol, name), self._of_seeds(other, protocol, name)
        if row.every_seed:
            (answer,) = one.values()
            one = dict.fromkeys(two, answer)
        seeds = [seed for seed in two if seed in one]
        if not seeds:
            return None
        means = [_mean(values[seed] for seed in seeds) for values in (one, two)]
        difference = paired_difference(*means, best=METRICS[name].best, groups=self._groups)
        return {"against": other.name, "seeds": seeds, **asdict(difference)}


def _mean(values: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over seeds of each image's value."""
    return np.mean(list(values), axis=0)


def _shown(
    row: _Row, rows: Sequence[_Row], runs: Mapping[str, Mapping[str, Any]], scores: _Scores
) -> dict[str, Any]:
    """Return what `results.json` tells of a row."""
    done = scores.jobs(row)
    cost = [runs[job.name] for job in done]
    first = _first_method(row, rows)
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


def _first_method(row: _Row, rows: Sequence[_Row]) -> _Row:
    """Return the row of the first method on the same backbone and size, else that of the very first run."""
    firsts = [one for one in rows if one.kind == "run"]
    place = ("backbone", "image_size")
    same = [one for one in firsts if all(one.model[key] == row.model.get(key) for key in place)]
    return (same or firsts)[0]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
