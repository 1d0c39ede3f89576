"""`compare`: from a recipe to the runs of its grid, and from these to one report."""

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
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
from samfit.data.sources import Found, find_samples
from samfit.data.splits import hold_out
from samfit.defaults import require_prompt_class
from samfit.engine.evaluation import groups_of, of_split, protocols_of
from samfit.errors import SettingError
from samfit.progress import track
from samfit.report.comparison import write_report
from samfit.runs import require_folder
from samfit.settings import CompareSettings, TrainSettings, resolved
from samfit.types import Sample

logger = logging.getLogger(__name__)

_PACKAGES = ("matplotlib", "jinja2")
"""What the report is drawn with."""
_OF_UNET = "monai"


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
    _require_packages(recipe)
    protocols_of(recipe.evaluation_of(output))
    found = _find(recipe)
    evaluation = recipe.evaluation_of(output).model_copy(update={"data": recipe.cells[0].settings.data})
    scored = of_split(found.samples, evaluation, None)
    jobs = _jobs(recipe, found.samples)
    waiting = [job for job in jobs if not job.is_finished()]
    if waiting:
        _require_sound(found, recipe.cells[0].settings.page)
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


def _require_packages(recipe: Recipe) -> None:
    needed = (*_PACKAGES, _OF_UNET) if "u-net" in recipe.beside else _PACKAGES
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        said = f"compare: not installed: {', '.join(missing)}"
        raise SettingError(f"{said}; pip install 'samfit[report,metrics]'")


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
    """Find the samples, and see that the prompts of every combination fit their classes."""
    first = recipe.cells[0].settings
    found = find_samples(
        first.dataset,
        resolved(first.data),
        classes=first.classes,
        values=first.mask_values,
        group=first.group,
    )
    for cell in recipe.cells:
        require_prompt_class(cell.settings, found.classes)
    return found


def _require_sound(found: Found, page: int | None) -> None:
    """Say once what every run would say of the data, and refuse what every run would refuse."""
    inspection = inspect(found, page=page, progress=track)
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
