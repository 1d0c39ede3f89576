"""Filling in what the user left open, from the row of the method and the card of the backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from samfit.backbones import BACKBONES, card_of
from samfit.backbones.card import BackboneCard
from samfit.config import setting_error
from samfit.data.sources import SOURCES
from samfit.declare import flag
from samfit.errors import SettingError, unknown_name
from samfit.losses import LOSSES
from samfit.methods import METHODS, option_of_others, row_of
from samfit.options import MethodOptions
from samfit.settings import EvaluateSettings, TrainSettings, resolved

_USED_BY: Mapping[str, tuple[str, ...]] = {
    "clicks": ("click",),
    "negative_clicks": ("click",),
    "box_jitter": ("box",),
    "prompt_class": ("click", "box"),
}
"""Settings of prompts, and the only kinds of prompt that each means anything for."""


def tables() -> dict[str, tuple[str, ...]]:
    """Return the names that settings with `choices` may take, by table. Loads no torch."""
    return {
        "backbones": tuple(BACKBONES),
        "methods": tuple(METHODS),
        "datasets": tuple(SOURCES),
        "losses": tuple(LOSSES),
    }


def resolve(settings: TrainSettings) -> TrainSettings:
    """Return the settings with everything filled in that has a default: what `config.yaml` holds.

    A default of the backbone's card goes before one of the method's row. Resolving twice changes nothing.
    None stays where it means "none" or "all": `patience`, `checkpoint_every`, `logger`, `classes`,
    `mask_values`, `page`, `prompt_class`, `variant`, `late_blocks`, and `data` of an imported run. Raises one
    `SettingError` that lists every value that does not fit the others, and every option of another method.
    """
    card, row = card_of(settings.backbone, settings.variant), row_of(settings.method)
    defaults = {"image_size": card.image_size, "fit": card.fit, **row.defaults, **card.defaults}
    filled = _fill(settings, defaults)
    filled = _fill(filled, {"loss_size": resolved(filled.image_size) // row.loss_fraction})
    faults = _misfits(filled) + _options_of_others(settings)
    if faults:
        raise setting_error(faults)
    return filled


def options_of(settings: TrainSettings) -> MethodOptions:
    """Return the options of the settings' method."""
    options = row_of(settings.method).options
    return options(**{field: getattr(settings, field) for field in options.model_fields})


def in_words(settings: TrainSettings) -> dict[str, Any]:
    """Return every setting that counts as plain values by field: without the options of other methods."""
    return settings.model_dump(mode="json", exclude=_foreign(settings))


def _foreign(settings: TrainSettings) -> set[str]:
    """Return the options that only other methods have."""
    everyones = {field for row in METHODS.values() for field in row.options.model_fields}
    return everyones - set(row_of(settings.method).options.model_fields)


def _options_of_others(settings: TrainSettings) -> list[str]:
    """Return a message for each given option that the method does not have."""
    row = row_of(settings.method)
    given = {
        field: getattr(settings, field) for field in sorted(_foreign(settings) & settings.model_fields_set)
    }
    return [option_of_others(row, field, value) for field, value in given.items() if value is not None]


def as_in_run(settings: EvaluateSettings, run: TrainSettings) -> EvaluateSettings:
    """Return the settings of an evaluation with everything filled in that the run says.

    `run` must have been resolved. Raises `SettingError` if a setting of the prompt is given that the kind
    of prompt or the backbone does not use.
    """
    open_fields = [field for field in type(settings).model_fields if getattr(settings, field) is None]
    filled = settings.model_copy(update={field: getattr(run, field) for field in open_fields})
    faults = _idle(filled.prompt, {field: getattr(settings, field) for field in _USED_BY})
    faults += _beyond(card_of(run.backbone), filled)
    if faults:
        raise setting_error(faults)
    return filled


def require_prompt_class(settings: TrainSettings | EvaluateSettings, classes: Sequence[str]) -> None:
    """Raise `SettingError` if the class that prompts are taken from is none of those that are segmented."""
    name = settings.prompt_class
    if name is not None and name not in classes:
        raise SettingError(f"{flag('prompt_class')} {name}: {unknown_name('class', name, classes)}")


def _fill(settings: TrainSettings, defaults: Mapping[str, Any]) -> TrainSettings:
    update = {field: value for field, value in defaults.items() if getattr(settings, field) is None}
    return settings.model_copy(update=update)


def _misfits(settings: TrainSettings) -> list[str]:
    """Return a message for each value that does not fit the backbone or another value."""
    card = card_of(settings.backbone)
    row = row_of(settings.method)
    image_size, batch_size = resolved(settings.image_size), resolved(settings.batch_size)
    shares = settings.accumulate * settings.devices * settings.nodes
    faults = []
    if image_size % card.patch:
        nearest_size = max(1, round(image_size / card.patch)) * card.patch
        faults.append(
            f"--image-size {image_size}: {card.name} needs a multiple of {card.patch}; "
            f"the nearest is {nearest_size}"
        )
    if resolved(settings.loss_size) > image_size:
        faults.append(f"--loss-size {settings.loss_size}: expected at most the image size, {image_size}")
    faults += _beyond(card, settings)
    try:
        row.first_block(options_of(settings), card)
    except SettingError as error:
        faults.append(str(error))
    if settings.classes is not None:
        try:
            require_prompt_class(settings, settings.classes)
        except SettingError as error:
            faults.append(str(error))
    if settings.accumulate > batch_size:
        faults.append(
            f"--accumulate {settings.accumulate}: a batch of {batch_size} has no more than {batch_size} "
            "parts; lower it or raise --batch-size"
        )
    elif shares > batch_size:
        faults.append(
            f"--batch-size {batch_size}: too small for {settings.nodes} x {settings.devices} devices "
            f"(--nodes, --devices) with {settings.accumulate} parts each (--accumulate); "
            f"expected at least {shares}"
        )
    fields = TrainSettings.model_fields
    given = {name: getattr(settings, name) for name in _USED_BY}
    changed = {name: value for name, value in given.items() if value != fields[name].default}
    return faults + _idle(settings.prompt, changed)


def _beyond(card: BackboneCard, settings: TrainSettings | EvaluateSettings) -> list[str]:
    """Return a message for each setting of the click prompt that the backbone cannot take."""
    if settings.prompt != "click":
        return []
    faults = []
    clicks, negative_clicks = resolved(settings.clicks), resolved(settings.negative_clicks)
    if negative_clicks and not card.negative_clicks:
        faults.append(f"--negative-clicks {negative_clicks}: {card.name} knows no negative clicks")
    if card.prompt_slots is not None and clicks + negative_clicks > card.prompt_slots:
        faults.append(f"--clicks {clicks}: {card.name} takes {card.prompt_slots} clicks at most")
    return faults


def _idle(prompt: str | None, given: Mapping[str, int | str | None]) -> list[str]:
    """Return a message for each given setting that the kind of prompt does not use."""
    return [
        f"{flag(field)} {value}: only --prompt {' or '.join(_USED_BY[field])} uses it, "
        f"and the prompt is {prompt}"
        for field, value in given.items()
        if value is not None and prompt not in _USED_BY[field]
    ]
