"""From settings or a run folder to a model."""

from dataclasses import dataclass

from samfit.backbones import load_backbone
from samfit.config import TrainSettings
from samfit.data.batches import PromptRule
from samfit.errors import RunError
from samfit.methods import attach
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder, load_adapter, read_adapter


def build_model(settings: TrainSettings, classes: tuple[str, ...]) -> AdaptedModel:
    """Load the backbone and attach the method as the settings say."""
    backbone = load_backbone(
        settings.backbone,
        weights=settings.weights,
        image_size=settings.image_size,
        fit=settings.fit,
        seed=settings.seed,
    )
    return attach(backbone, settings.method, classes=classes, seed=settings.seed)


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
    header, _ = read_adapter(folder.adapter)
    model = build_model(settings, header.classes)
    if keep_base:
        model.keep_base()
    load_adapter(folder.adapter, model)
    return FinishedRun(folder, settings, model.eval())


def prompt_rule(settings: TrainSettings) -> PromptRule:
    """Return how the settings derive prompts from masks. The settings must be resolved."""
    if settings.prompt is None:
        raise RunError("the prompt is not set; resolve the settings first")
    return PromptRule(
        settings.prompt, settings.clicks, settings.negative_clicks, settings.box_jitter, settings.seed
    )
