"""`compare`: from a recipe to the runs of its grid, and from these to one report."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from samfit.compare.cluster import require_cluster, run_on_cluster
from samfit.compare.here import devices, run_here
from samfit.compare.jobs import Job, Kind, budget, hashes_of_named_files
from samfit.compare.recipe import Recipe, read_recipe
from samfit.compare.results import collect
from samfit.compare.running import Ended, Engine, Place
from samfit.data.fingerprint import fingerprint, hashes_of
from samfit.data.inspect import inspect, require_sound, say_doubts
from samfit.data.sources import Found, find_of
from samfit.data.splits import held_apart, hold_out
from samfit.defaults import require_prompt_class
from samfit.engine.evaluation import groups_of, of_split, protocols_of
from samfit.errors import DataError, SettingError
from samfit.packages import require_packages
from samfit.progress import track
from samfit.report.comparison import write_report
from samfit.runs import require_folder
from samfit.settings import CompareSettings, TrainSettings
from samfit.types import Sample

logger = logging.getLogger(__name__)


def compare(settings: CompareSettings, engine: Engine | None = None) -> dict[str, Any]:
    """Do what a recipe asks for and what is not done yet; return what `results.json` holds.

    `engine`: does the jobs; by default the one that the settings name. A job that fails stands in the
    results with its error. Raises `SettingError` for a faulty recipe or a cluster that is not there,
    `DataError` for data that cannot be used, and `Interrupted` after Ctrl-C or SIGTERM: then everything
    that was finished is kept.
    """
    _require_engine(settings)
    require_folder(settings.output)
    output = settings.output.absolute()
    recipe = read_recipe(settings.recipe, output / "runs", settings.data)
    require_report(recipe.beside)
    protocols_of(recipe.evaluation_of(output))
    found = _find(recipe)
    scored = of_split(found.samples, recipe.evaluation_of(output), None)
    jobs = _jobs(recipe, found.samples)
    waiting = [job for job in jobs if not job.is_finished()]
    if waiting:
        _require_sound(found, recipe.cells[0].settings)
    if len(waiting) < len(jobs):
        logger.info("%d of %d runs are finished already", len(jobs) - len(waiting), len(jobs))
    errors: dict[str, str] = {}
    work = engine or _engine(settings, recipe.cells[0].settings.accelerator == "cpu")
    for ended in track(work(waiting), "runs", total=len(waiting)):
        _say(ended)
        if ended.error is not None:
            errors[ended.job.name] = ended.error
    results = collect(recipe.values, jobs, errors, len(scored), groups_of(scored))
    write_report(output, results)
    return results


def require_report(beside: Sequence[Kind] = ()) -> None:
    """Raise `SettingError` if what draws the report, or stands beside its runs, is not installed."""
    require_packages("the report", ("matplotlib", "jinja2"))
    if "u-net" in beside:
        require_packages("the U-Net that stands beside the runs", ("monai",))


def _require_engine(settings: CompareSettings) -> None:
    if settings.slurm is not None and settings.cluster != "slurm":
        raise SettingError(f"--slurm: only --cluster slurm has it, not --cluster {settings.cluster}")
    if settings.cluster != "here":
        require_cluster(settings.cluster)


def _jobs(recipe: Recipe, data: Sequence[Sample]) -> list[Job]:
    """Return every job: the cells in their order, then what stands beside them."""
    content = fingerprint(data, hashes_of(data))
    first = recipe.cells[0].settings
    training, _ = hold_out(data, first.validation_fraction, first.seed)
    named = hashes_of_named_files(first)  # the same in every cell

    def job(name: str, kind: Kind, train: TrainSettings) -> Job:
        folder = first.output.with_name(name)
        evaluate = recipe.evaluation_of(folder)
        return Job(name, kind, folder, train.model_copy(update={"output": folder}), evaluate, content, named)

    jobs = [job(cell.name, "run", cell.settings) for cell in recipe.cells]
    if "mean-mask" in recipe.beside:
        jobs.append(job("mean-mask", "mean-mask", first))
    if "u-net" not in recipe.beside:
        return jobs
    for seed in dict.fromkeys(cell.settings.seed for cell in recipe.cells):
        cells = [cell.settings for cell in recipe.cells if cell.settings.seed == seed]
        longest = max(cells, key=lambda one: budget(one, len(training)))
        jobs.append(job(f"u-net-seed{seed}", "u-net", longest))
    return jobs


def _find(recipe: Recipe) -> Found:
    """Find the samples, and see that there are some to compare on, and that all prompts fit their classes."""
    first = recipe.cells[0].settings
    found = find_of(first)
    for cell in recipe.cells:
        require_prompt_class(cell.settings, found.classes)
    splits = sorted({sample.split for sample in found.samples})
    if "test" not in splits:
        raise DataError(
            f"{first.data}: a comparison needs test images, and the data set has {', '.join(splits)} images "
            "alone; give it a test split"
        )
    return found


def _require_sound(found: Found, settings: TrainSettings) -> None:
    """Say once what a run with these settings would say of the data, and refuse what it would refuse."""
    apart = held_apart(found.samples, settings.validation_fraction, settings.seed)
    inspection = inspect(replace(found, samples=apart), page=settings.page, progress=track)
    require_sound(inspection)
    say_doubts(inspection)


def _engine(settings: CompareSettings, on_cpu: bool) -> Engine:
    """Return the engine that the settings name, with as many places as they allow."""

    def work(jobs: Sequence[Job]) -> Iterator[Ended]:
        machines: Sequence[Place] = [{}]
        if settings.cluster == "slurm":
            machines = [{}] * len(jobs)  # what a job sees is for Slurm to say
        elif not on_cpu and jobs:
            machines = devices()
        places = list(islice(cycle(machines), settings.jobs or len(machines)))
        if settings.cluster == "here":
            return run_here(jobs, places)
        folder = settings.output.absolute()
        return run_on_cluster(jobs, places, settings.cluster, settings.slurm or {}, folder)

    return work


def _say(ended: Ended) -> None:
    if ended.error is None:
        logger.info("%s: done", ended.job.name)
    else:
        logger.warning("%s failed, the others go on: %s", ended.job.name, ended.error)
