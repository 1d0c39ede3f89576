"""Settings of the commands: the single truth from which flags, config files and Python arguments are made.

A field that is None by default takes its value from the row of the method or the card of the backbone
(`samfit.defaults.resolve`). Relative paths, in a config file too, are relative to the working folder.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from samfit.errors import SettingError, nearest, unknown_name
from samfit.files import write_text

PROMPTS = ("click", "box", "full-box", "none")
PromptKind = Literal["click", "box", "full-box", "none"]

POSITIONAL: Mapping[str, str] = MappingProxyType({"run": "RUN", "images": "IMAGE..."})
"""Settings that are written without a flag, with the word that `--help` shows for them."""

_LARGEST_GREY = 65535
_NAME = re.compile(r"\w[\w-]*")  # names of classes become names of files


def setting(default: Any, help: str, section: str, *, choices: str | None = None, **bounds: Any) -> Any:
    """Declare one setting: its default, help text, section in `--help`, table of names and bounds."""
    extra: dict[str, Any] = {"section": section} | ({"choices": choices} if choices else {})
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base of the settings of every command."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, info: ValidationInfo) -> Any:
        """Bring a value from a YAML file to what the same words on the command line would be.

        YAML reads `precision: 32` as a number where a word is meant, and `epochs: yes` as a truth value,
        which Python would take for the number 1.
        """
        kind = value_kind(cls, str(info.field_name))
        unusable = isinstance(value, bool) and kind is not bool
        if unusable or (value == "" and kind in (Path, str)):
            raise ValueError(f"expected {expected(cls, str(info.field_name))}")
        if isinstance(value, int | float) and kind in (Path, str, Literal):
            return str(value)
        return value


class DataSettings(Settings):
    """Where images and masks lie and how they are read."""

    data: Path = setting(..., "folder of the data set", "Data")
    dataset: str = setting("folder", "layout of the data set", "Data", choices="datasets")
    classes: tuple[str, ...] | None = setting(
        None, "classes to segment, comma-separated (default: all that the data set has)", "Data"
    )
    mask_values: dict[str, int] | None = setting(
        None, "grey values of classes in one mask, as name=value,name=value", "Data"
    )
    page: int | None = setting(None, "page to read of images that have several, from 0", "Data", ge=0)

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        """Read `disc,cup` as two names; a list from a YAML file is taken as it is."""
        return _names(value.split(",") if isinstance(value, str) else value)

    @field_validator("mask_values", mode="before")
    @classmethod
    def _split_mask_values(cls, value: Any) -> Any:
        """Read `cytoplasm=128,nucleus=255` as a mapping; one from a YAML file is taken as it is."""
        if isinstance(value, str):
            value = [part.partition("=")[::2] for part in value.split(",")]
        elif isinstance(value, dict):
            value = list(value.items())
        elif value is None:
            return None
        else:
            raise ValueError("expected name=value,name=value")
        names = _names([name for name, _ in value]) or ()
        greys = [_grey(name, grey) for name, (_, grey) in zip(names, value, strict=True)]
        if len(set(greys)) < len(greys):
            raise ValueError("two classes have the same grey value")
        return dict(zip(names, greys, strict=True))


def _names(words: Any) -> tuple[str, ...] | None:
    """Return names of classes, each given once, without the spaces around them."""
    if words is None:
        return None
    if not isinstance(words, list | tuple) or not words:
        raise ValueError("expected names, comma-separated")
    names = tuple(str(word).strip() for word in words)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' is no name of a class; use letters, digits, '_' and '-'")
        if names.count(name) > 1:
            raise ValueError(f"'{name}' is named twice")
    return names


def _grey(name: str, value: Any) -> int:
    """Return the grey value of a class, 1…65535; 0 is background."""
    text = str(value).strip()
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_GREY:
        raise ValueError(
            f"the grey value of '{name}' is '{text}'; expected name=value with a whole number "
            f"from 1 to {_LARGEST_GREY} (0 is background)"
        )
    return int(text)


class PromptSettings(Settings):
    """What the mask decoder is asked."""

    prompt: PromptKind | None = setting(
        None,
        "click and box are taken from the mask; full-box is the whole image (default: the method's)",
        "Prompt",
    )
    clicks: int = setting(1, "positive clicks of the click prompt", "Prompt", ge=1, le=5)
    negative_clicks: int = setting(0, "negative clicks of the click prompt", "Prompt", ge=0, le=5)
    box_jitter: int = setting(0, "move each side of the box prompt by up to this many pixels", "Prompt", ge=0)


class TrainSettings(DataSettings, PromptSettings):
    """Every setting of `samfit train`."""

    output: Path = setting(..., "folder of the run; must not hold one yet", "Run")
    seed: int = setting(
        0, "seeds the split, the order, prompts, augmentation and new weights", "Run", ge=0, le=2**32 - 1
    )
    samples_every: int = setting(5, "epochs between sheets of overlays in samples/", "Run", ge=1)
    checkpoint_every: int | None = setting(
        None, "also write last.ckpt every so many steps (default: once an epoch)", "Run", ge=1
    )
    logger: Literal["wandb", "tensorboard"] | None = setting(None, "also log to this tool", "Run")

    backbone: str = setting("sam-vit-b", "backbone to adapt", "Model", choices="backbones")
    method: str = setting("cad", "how it is adapted", "Model", choices="methods")
    weights: str = setting("published", "base weights: published, random, or a file", "Model")
    image_size: int | None = setting(
        None, "side of the model frame in pixels (default: the backbone's)", "Model", ge=16, le=4096
    )
    fit: Literal["pad", "squeeze"] | None = setting(
        None, "how an image meets the square: pad keeps its aspect (default: the backbone's)", "Model"
    )

    validation_fraction: float = setting(
        0.15, "share of the training images held back to choose the best epoch", "Data", gt=0, lt=1
    )
    augment: Literal["none", "flips", "affine"] = setting(
        "flips", "flips: also quarter turns; affine: also shift, scale and rotation", "Data"
    )
    workers: int = setting(0, "processes that read images beside the training", "Data", ge=0)

    loss: str | None = setting(None, "loss (default: the method's)", "Training", choices="losses")
    loss_size: int | None = setting(
        None,
        "side at which the loss is taken, in pixels (default: the method's share of the image size)",
        "Training",
        ge=4,
    )
    epochs: int | None = setting(
        None, "passes over the training images (default: the method's)", "Training", ge=1
    )
    batch_size: int | None = setting(
        None, "images of one optimizer step, over all devices (default: the method's)", "Training", ge=1
    )
    accumulate: int = setting(
        1, "parts in which a batch passes, one after the other, to save memory", "Training", ge=1
    )
    optimizer: Literal["adamw", "adam"] | None = setting(
        None, "optimizer (default: the method's)", "Training"
    )
    learning_rate: float | None = setting(
        None, "highest learning rate (default: the method's)", "Training", gt=0, le=1
    )
    weight_decay: float | None = setting(None, "weight decay (default: the method's)", "Training", ge=0)
    schedule: Literal["cosine", "constant"] = setting("cosine", "learning rate over the steps", "Training")
    warmup: int = setting(0, "steps in which the learning rate rises to its highest", "Training", ge=0)
    patience: int | None = setting(
        None, "stop after so many epochs without a better validation Dice (default: never)", "Training", ge=1
    )

    precision: Literal["32", "bf16"] = setting("32", "numbers of the forward pass", "Machine")
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device", "Machine")
    devices: int = setting(1, "how many devices share each batch", "Machine", ge=1)
    strategy: Literal["auto", "ddp"] = setting(
        "auto", "how devices work together, as Lightning names it", "Machine"
    )
    nodes: int = setting(1, "machines that share each batch", "Machine", ge=1)


class EvaluateSettings(Settings):
    """Every setting of `samfit evaluate`; what is None is as in the run (`samfit.defaults.as_in_run`)."""

    run: Path = setting(..., "folder of the run", "Data")
    data: Path | None = setting(None, "folder of the data set (default: the run's)", "Data")
    dataset: str | None = setting(
        None, "layout of the data set (default: the run's)", "Data", choices="datasets"
    )
    split: Literal["train", "validation", "test"] = setting("test", "which images are scored", "Data")
    prompt: PromptKind | None = setting(
        None,
        "click and box are taken from the mask; full-box is the whole image (default: the run's)",
        "Prompt",
    )
    clicks: int | None = setting(
        None, "positive clicks of the click prompt (default: the run's)", "Prompt", ge=1, le=5
    )
    negative_clicks: int | None = setting(
        None, "negative clicks of the click prompt (default: the run's)", "Prompt", ge=0, le=5
    )
    box_jitter: int | None = setting(
        None,
        "move each side of the box prompt by up to this many pixels (default: the run's)",
        "Prompt",
        ge=0,
    )
    overlays: int = setting(8, "how many overlays to write, the worst first", "Output", ge=0)
    batch_size: int = setting(4, "images that pass the model at once", "Machine", ge=1)
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device", "Machine")


class PredictSettings(Settings):
    """Every setting of `samfit predict`."""

    run: Path = setting(..., "folder of the run", "Data")
    images: tuple[Path, ...] = setting(..., "images, or folders of images", "Data", min_length=1)
    output: Path = setting(..., "folder for the masks", "Output")
    overlay: bool = setting(False, "also write <name>_overlay.png, the outline drawn on the image", "Output")
    probabilities: bool = setting(False, "also write <name>_probability.png, 0 to 65535 for 0 to 1", "Output")
    overwrite: bool = setting(False, "replace files that are already there", "Output")
    prompts: Path | None = setting(
        None, "CSV or JSON file with clicks or a box for each image (default: the run's prompt)", "Prompt"
    )
    page: int | None = setting(None, "page to read of images that have several, from 0", "Data", ge=0)
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device", "Machine")


SettingsT = TypeVar("SettingsT", bound=Settings)
ValueT = TypeVar("ValueT")


def resolved(value: ValueT | None) -> ValueT:
    """Return a setting that `samfit.defaults` has filled in."""
    assert value is not None, "the settings must be resolved"
    return value


def flag(field: str) -> str:
    """Return a field as the user types it: `image_size` → `--image-size`, `run` → `RUN`."""
    return POSITIONAL.get(field) or "--" + field.replace("_", "-")


def choices_of(model: type[Settings], field: str) -> str | None:
    """Return the name of the table that a field's values come from, or None."""
    extra = model.model_fields[field].json_schema_extra
    return str(extra["choices"]) if isinstance(extra, dict) and "choices" in extra else None


def value_type(model: type[Settings], field: str) -> Any:
    """Return the type of a field without its `None`."""
    annotation = model.model_fields[field].annotation
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if type(None) in get_args(annotation) else annotation


def value_kind(model: type[Settings], field: str) -> Any:
    """Return what a field holds: `bool`, `int`, `float`, `str`, `Path`, `tuple`, `dict` or `Literal`."""
    kind = value_type(model, field)
    return get_origin(kind) or kind


def words_of(model: type[Settings], field: str) -> tuple[str, ...]:
    """Return the words that a `Literal` field may be, or nothing for any other field."""
    return get_args(value_type(model, field)) if value_kind(model, field) is Literal else ()


def bounds_of(model: type[Settings], field: str) -> dict[str, float]:
    """Return the bounds of a field by their names in pydantic: some of `ge`, `gt`, `le`, `lt`."""
    return {
        bound: getattr(rule, bound)
        for rule in model.model_fields[field].metadata
        for bound in ("ge", "gt", "le", "lt")
        if hasattr(rule, bound)
    }


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    Path: "a path",
    tuple: "names, comma-separated",
    dict: "name=value,name=value",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def limits(model: type[Settings], field: str) -> str:
    """Say which values a field may have: `at least 1 and at most 5`, `one of pad, squeeze`, or nothing."""
    words = words_of(model, field)
    if words:
        return f"one of {', '.join(words)}"
    return " and ".join(f"{_BOUNDS[bound]} {limit}" for bound, limit in bounds_of(model, field).items())


def expected(model: type[Settings], field: str) -> str:
    """Say what a field may hold: `a whole number, at least 1 and at most 5`, or `one of pad, squeeze`."""
    kind = _KINDS.get(value_kind(model, field))
    return ", ".join(part for part in (kind, limits(model, field)) if part)


def parse(
    model: type[SettingsT],
    values: Mapping[str, Any],
    tables: Mapping[str, Sequence[str]],
    source: str | Mapping[str, str] = MappingProxyType({}),
) -> SettingsT:
    """Check `values` and return the settings.

    `tables`: names that a field with `choices` may take, by table. `source`: the file that the values come
    from, or the file of each field that was not typed as a flag; messages name it. Raises one
    `SettingError` that lists every fault.
    """
    origins = dict.fromkeys(values, source) if isinstance(source, str) else source
    known = {field: value for field, value in values.items() if field in model.model_fields}
    faults = {
        field: f"there is no such setting{nearest(flag(field), map(flag, model.model_fields))}"
        for field in values
        if field not in known
    }
    settings = None
    try:
        settings = model.model_validate(known)
    except ValidationError as error:
        for detail in error.errors():
            field = str(detail["loc"][0])
            faults.setdefault(field, _reason(model, field, detail))
    for field, value in known.items():
        table = choices_of(model, field)
        if table and value is not None and value not in tables[table]:
            faults[field] = unknown_name(field, str(value), tables[table])
    if settings is not None and not faults:
        return settings
    raise setting_error([_line(field, reason, values, origins) for field, reason in faults.items()])


def _reason(model: type[Settings], field: str, detail: Any) -> str:
    if detail["type"] == "missing":
        return f"is needed: {model.model_fields[field].description}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return f"expected {expected(model, field)}{nearest(str(detail['input']), words_of(model, field))}"


def _line(field: str, reason: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    if field not in values:
        return f"{flag(field)} {reason}"
    origin = f" (in {origins[field]})" if field in origins else ""
    return f"{flag(field)} {values[field]}{origin}: {reason}"


def setting_error(faults: Sequence[str]) -> SettingError:
    """Return one error that lists every fault, one a line."""
    if len(faults) == 1:
        return SettingError(faults[0])
    return SettingError("\n  ".join([f"{len(faults)} settings are wrong:", *faults]))


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; hyphens and underscores in keys are the same.

    Raises `SettingError` if there is no such file, it cannot be read, it is not a mapping, or it says
    something twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(f"--config {path}: not a text file in UTF-8") from error
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SettingError(f"--config {path}: {reason}") from error
    try:
        content = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        raise SettingError(f"--config {path}: not a YAML file: {error}") from error
    if not isinstance(content, dict) or not isinstance(tree, yaml.MappingNode):
        raise SettingError(
            f"--config {path}: expected lines of 'setting: value', found {text.strip()[:40]!r}"
        )
    keys = [str(key.value).replace("-", "_") for key, _ in tree.value]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise SettingError(f"--config {path}: given twice: {', '.join(twice)}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def write_config(path: Path, settings: Settings) -> None:
    """Write every setting, defaults included, so that `--config path` repeats the run."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
