"""Filling in what the user left open, from the row of the method and the card of the backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from samfit.backbones import BACKBONES, card_of
from samfit.backbones.card import BackboneCard
from samfit.data.sources import SOURCES
from samfit.declare import flag, typed
from samfit.errors import SettingError, unknown_name
from samfit.losses import LOSSES
from samfit.methods import METHODS, option_of_others, row_of
from samfit.metrics.protocols import DEFAULT, PROTOCOLS, Protocol
from samfit.options import MethodOptions
from samfit.settings import EvaluateSettings, TrainSettings, resolved

_USED_BY: Mapping[str, tuple[str, ...]] = {
    "clicks": ("click",),
    "negative_clicks": ("click",),
    "box_jitter": ("box",),
    "prompt_class": ("click", "box"),
}
"""Settings of prompts, and the only kinds of prompt that each means anything for."""


def settings_of_prompt(kind: str) -> tuple[str, ...]:
    """Return the settings that mean anything for a kind of prompt."""
    return tuple(field for field, kinds in _USED_BY.items() if kind in kinds)


def tables() -> dict[str, tuple[str, ...]]:
    """Return the names that settings with `choices` may take, by table. Loads no torch."""
    return {
        "backbones": tuple(BACKBONES),
        "methods": tuple(METHODS),
        "datasets": tuple(SOURCES),
        "losses": tuple(LOSSES),
        "protocols": tuple(PROTOCOLS),
    }


def resolve(settings: TrainSettings) -> TrainSettings:
    """Return the settings with everything filled in that has a default: what `config.yaml` holds.

    A default of the backbone's card goes before one of the method's row. Resolving twice changes nothing.
    None stays where it means "none" or "all": `patience`, `checkpoint_every`, `logger`, `classes`,
    `mask_values`, `page`, `group`, `prompt_class`, `variant`, `late_blocks`, `max_steps`, `vram`, and
    `data` of an imported run. Raises one `SettingError` that lists every value that does not fit the others,
    and every option of another method.
    """
    card, row = card_of(settings.backbone, settings.variant), row_of(settings.method)
    defaults = {"image_size": card.image_size, "fit": card.fit, **row.defaults, **card.defaults}
    filled = _fill(settings, defaults)
    filled = _fill(filled, {"loss_size": resolved(filled.image_size) // row.loss_fraction})
    faults = _misfits(filled) + _options_of_others(settings)
    if faults:
        raise SettingError(faults)
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


def as_in_run(
    settings: EvaluateSettings, run: TrainSettings, protocol: Protocol = DEFAULT
) -> EvaluateSettings:
    """Return the settings of an evaluation with everything filled in that the protocol, then the run says.

    `run` must have been resolved. Raises `SettingError` if a setting of the prompt is given that the protocol
    contradicts, or that the kind of prompt or the backbone does not use.
    """
    fixed: dict[str, Any] = {}
    if run.prompt not in protocol.prompts:
        fixed["prompt"] = protocol.prompts[0]
    if protocol.clicks is not None:
        fixed |= {"clicks": protocol.clicks, "negative_clicks": 0}
    open_fields = [field for field in TrainSettings.model_fields if getattr(settings, field, 0) is None]
    said = {field: fixed.get(field, getattr(run, field)) for field in open_fields}
    filled = settings.model_copy(update=said)
    faults = _contradicted(settings, protocol, fixed)
    faults += _idle(filled.prompt, {field: getattr(settings, field) for field in _USED_BY})
    faults += _beyond(card_of(run.backbone), filled)
    if faults:
        raise SettingError(list(dict.fromkeys(faults)))
    return filled


def _contradicted(settings: EvaluateSettings, protocol: Protocol, fixed: Mapping[str, Any]) -> list[str]:
    """Return a message for each given setting of the prompt that is not the protocol's."""
    remedy = f"leave it out, or leave {protocol.name} out of --protocol"
    faults = []
    if settings.prompt is not None and settings.prompt not in protocol.prompts:
        kinds = " or ".join(protocol.prompts)
        faults.append(f"--prompt {settings.prompt}: the protocol {protocol.name} asks with {kinds}; {remedy}")
    for field in ("clicks", "negative_clicks"):
        value = getattr(settings, field)
        if value is not None and value != fixed.get(field, value):
            own = typed(field, fixed[field])
            faults.append(f"{typed(field, value)}: the protocol {protocol.name} asks with {own}; {remedy}")
    return faults


def why_not_cached(settings: TrainSettings) -> str | None:
    """Return why no embedding of a run can be used twice, or None if they can be kept."""
    if not row_of(settings.method).caches_embedding:
        return f"--method {settings.method} trains in the encoder, so that every step changes the embeddings"
    if settings.augment == "affine":
        return "--augment affine shows an image differently each time, so that no embedding is used twice"
    return None


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
    refused = why_not_cached(settings)
    if refused is not None and settings.cache in ("memory", "disk"):
        faults.append(f"--cache {settings.cache}: {refused}; leave it out")
    if settings.cache_half:
        if settings.cache == "off":
            refused = "with --cache off nothing is kept"
        elif settings.precision == "bf16":
            refused = "with --precision bf16 embeddings have half the size already"
        if refused is not None:
            faults.append(f"--cache-half: {refused}; leave it out")
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
