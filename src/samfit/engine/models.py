"""From settings or a run folder to a model."""

from dataclasses import dataclass

from samfit.backbones import load_backbone
from samfit.data.batches import PromptRule
from samfit.defaults import options_of
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder, load_adapter, read_adapter
from samfit.settings import EvaluateSettings, TrainSettings, resolved


def build_model(settings: TrainSettings, classes: tuple[str, ...]) -> AdaptedModel:
    """Load the backbone and attach the method as the settings say."""
    backbone = load_backbone(
        settings.backbone,
        weights=settings.weights,
        variant=settings.variant,
        image_size=settings.image_size,
        fit=settings.fit,
        seed=settings.seed,
    )
    options = dict(options_of(settings))
    return attach(backbone, settings.method, classes=classes, seed=settings.seed, **options)


@dataclass(frozen=True)
class FinishedRun:
    """A run's model at its best epoch, and its settings."""

    folder: RunFolder
    settings: TrainSettings
    model: AdaptedModel


def open_run(folder: RunFolder, *, keep_base: bool = False) -> FinishedRun:
    """Rebuild a run's model from its settings and its adapter.

    `keep_base`: so that `model.disabled()` can be used. Raises `RunError` if the adapter does not fit.
    """
    settings = folder.settings()
    if folder.base.is_file():  # the run may lie elsewhere than where it was imported to
        settings = settings.model_copy(update={"weights": str(folder.base)})
    header, _ = read_adapter(folder.adapter)
    model = build_model(settings, header.classes)
    if keep_base:
        model.keep_base()
    load_adapter(folder.adapter, model)
    return FinishedRun(folder, settings, model.eval())


def prompt_rule(settings: TrainSettings | EvaluateSettings, seed: int) -> PromptRule:
    """Return how the settings derive prompts from masks. The settings must be resolved."""
    return PromptRule(
        kind=resolved(settings.prompt),
        clicks=resolved(settings.clicks),
        negative_clicks=resolved(settings.negative_clicks),
        box_jitter=resolved(settings.box_jitter),
        seed=seed,
        of_class=settings.prompt_class,
    )
