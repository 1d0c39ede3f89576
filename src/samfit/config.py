"""Settings of the commands: the single truth from which flags, config files and Python arguments are made.

A field that is None by default takes its value from the row of the method or the card of the backbone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from samfit.errors import SettingError, nearest, unknown_name
from samfit.files import write_text

PROMPTS = ("click", "box", "full-box", "none")
PromptKind = Literal["click", "box", "full-box", "none"]


def setting(default: Any, help: str, section: str, *, choices: str | None = None, **bounds: Any) -> Any:
    """Declare one setting: its default, help text, section in `--help`, table of names and bounds."""
    extra: dict[str, Any] = {"section": section} | ({"choices": choices} if choices else {})
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base of the settings of every command."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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
    seed: int = setting(0, "seeds the split, the order, prompts, augmentation and new weights", "Run", ge=0)
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
    strategy: str = setting("auto", "how devices work together, as Lightning names it", "Machine")
    nodes: int = setting(1, "machines that share each batch", "Machine", ge=1)


class EvaluateSettings(PromptSettings):
    """Every setting of `samfit evaluate`; what is not given is as in the run."""

    run: Path = setting(..., "folder of the run", "Data")
    data: Path | None = setting(None, "folder of the data set (default: the run's)", "Data")
    dataset: str | None = setting(
        None, "layout of the data set (default: the run's)", "Data", choices="datasets"
    )
    split: Literal["train", "validation", "test"] = setting("test", "which images are scored", "Data")
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


def flag(field: str) -> str:
    """Return the flag of a field: `image_size` → `--image-size`."""
    return "--" + field.replace("_", "-")


def choices_of(model: type[Settings], field: str) -> str | None:
    """Return the name of the table that a field's values come from, or None."""
    extra = model.model_fields[field].json_schema_extra
    return str(extra["choices"]) if isinstance(extra, dict) and "choices" in extra else None


def parse(
    model: type[SettingsT], values: Mapping[str, Any], tables: Mapping[str, Sequence[str]], source: str = ""
) -> SettingsT:
    """Check `values` and return the settings.

    `tables`: names that a field with `choices` may take, by table. `source`: the config file, if any, for
    the message. Raises one `SettingError` that lists every fault.
    """
    faults = []
    for field, value in values.items():
        if field not in model.model_fields:
            faults.append(f"{flag(field)}: there is no such setting{nearest(field, model.model_fields)}")
            continue
        table = choices_of(model, field)
        if table and value is not None and value not in tables[table]:
            faults.append(
                f"{flag(field)}: {unknown_name(table.removesuffix('s'), str(value), tables[table])}"
            )
    known = {field: value for field, value in values.items() if field in model.model_fields}
    try:
        settings = model.model_validate(known)
    except ValidationError as error:
        faults.extend(_fault(model, detail) for detail in error.errors())
    else:
        if not faults:
            return settings
    where = f"{source}: " if source else ""
    if len(faults) == 1:
        raise SettingError(where + faults[0])
    raise SettingError(
        f"{where}{len(faults)} settings are wrong:\n" + "\n".join(f"  {fault}" for fault in faults)
    )


def _fault(model: type[Settings], detail: Any) -> str:
    field = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "missing":
        return f"{flag(field)} is needed: {model.model_fields[field].description}"
    found = detail.get("input")
    reason = detail["msg"][0].lower() + detail["msg"][1:]
    if detail["type"] == "literal_error":
        words = [
            word for word in detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        ]
        reason = f"expected one of {', '.join(words)}{nearest(str(found), words)}"
    return f"{flag(field)} {found}: {reason}"


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; hyphens and underscores in keys are the same.

    Raises `SettingError` if there is no such file, or it is not a mapping.
    """
    if not path.is_file():
        raise SettingError(f"--config {path}: there is no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"--config {path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise SettingError(
            f"--config {path}: expected lines of 'setting: value', found {type(content).__name__}"
        )
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def write_config(path: Path, settings: Settings) -> None:
    """Write every setting, defaults included, so that `--config path` repeats the run."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
