"""Settings of the commands: the single truth from which flags, config files and Python arguments are made.

A field that is None by default takes its value from the row of the method or the card of the backbone
(`samfit.defaults.resolve`). Relative paths, in a config file too, are relative to the working folder.
"""

import math
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ByteSize, field_validator

from samfit.declare import Settings, setting, split_words
from samfit.options import LoraOptions

PROMPTS = ("click", "box", "full-box", "none")
PROMPTS_FROM_TRUTH = ("click", "box")
"""Those that tell the model something that only the truth knows."""
PromptKind = Literal["click", "box", "full-box", "none"]
AttentionKind = Literal["auto", "chunked", "folded", "eager"]
Augmentation = Literal["none", "flips", "affine"]
Precision = Literal["32", "bf16"]

_ATTENTION = "how the encoder's attention is computed; masks are the same, memory and time are not"
_GROUP = (
    "which images belong together, as those of one patient: a regular expression whose one pair of "
    "parentheses finds the group in an image's name, or a CSV file with the columns image,group"
)
_LARGEST_GREY = 65535
_NAME = re.compile(r"\w[\w-]*")  # names of classes become names of files


class DataSettings(Settings):
    """Where images and masks lie and how they are read."""

    data: Path | None = setting(..., "folder of the data set", "Data")
    """None for an imported run, which has none."""
    dataset: str = setting("folder", "layout of the data set", "Data", choices="datasets")
    classes: tuple[str, ...] | None = setting(
        None, "classes to segment, comma-separated (default: all that the data set has)", "Data"
    )
    mask_values: dict[str, int] | None = setting(
        None, "grey values of classes in one mask, as name=value,name=value", "Data"
    )
    page: int | None = setting(None, "page to read of images that have several, from 0", "Data", ge=0)
    group: str | None = setting(None, _GROUP, "Data")

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        return _split_names(value)

    @field_validator("group")
    @classmethod
    def _check_group(cls, value: str | None) -> str | None:
        return _group(value)

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


def is_table(group: str) -> bool:
    """Whether a value of `--group` names a CSV file; any other is a regular expression."""
    return group.lower().endswith(".csv")


def _group(value: str | None) -> str | None:
    """Refuse a regular expression that cannot be read, or that does not say which part is the group."""
    if value is None or is_table(value):
        return value
    try:
        count = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"neither a file that ends in .csv nor a regular expression: {error}") from error
    if count != 1:
        raise ValueError(
            f"expected one pair of parentheses around what names the group, as in '^(patient\\d+)_'; "
            f"found {count}"
        )
    return value


def _split_names(value: Any) -> tuple[str, ...] | None:
    """Read `disc,cup` as two names; a list from a YAML file is taken as it is."""
    return _names(value.split(",") if isinstance(value, str) else value)


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
    prompt_class: str | None = setting(
        None, "class that clicks and the box are taken from (default: all classes together)", "Prompt"
    )


class TrainSettings(DataSettings, PromptSettings, LoraOptions):
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
    variant: Literal["medical-sam-adapter"] | None = setting(
        None,
        "build the backbone as this published code does, for its checkpoints (set by samfit import)",
        "Model",
    )
    image_size: int | None = setting(
        None, "side of the model frame in pixels (default: the backbone's)", "Model", ge=16, le=4096
    )
    fit: Literal["pad", "squeeze"] | None = setting(
        None, "how an image meets the square: pad keeps its aspect (default: the backbone's)", "Model"
    )

    validation_fraction: float = setting(
        0.15, "share of the training images held back to choose the best epoch", "Data", gt=0, lt=1
    )
    augment: Augmentation = setting(
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
    max_steps: int | None = setting(
        None, "end after so many optimizer steps, in the middle of an epoch too", "Training", ge=1
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
    schedule: Literal["cosine", "constant"] | None = setting(
        None, "learning rate over the steps (default: the method's)", "Training"
    )
    warmup: int = setting(0, "steps in which the learning rate rises to its highest", "Training", ge=0)
    patience: int | None = setting(
        None, "stop after so many epochs without a better validation Dice (default: never)", "Training", ge=1
    )

    precision: Precision = setting(
        "32", "numbers that a training computes with, and stores frozen weights in", "Machine"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device", "Machine")
    attention: AttentionKind = setting("auto", _ATTENTION, "Machine")
    checkpointing: Literal["auto", "on", "off"] = setting(
        "auto",
        "compute encoder blocks and mask decoder again in backward instead of keeping what they made; auto: "
        "where a step would not fit otherwise",
        "Machine",
    )
    vram: ByteSize | None = setting(
        None,
        "memory that each device may take: choose precision, checkpointing, parts and cache so that the "
        "batch fits, where they are not given",
        "Machine",
    )
    cache: Literal["auto", "memory", "disk", "off"] = setting(
        "auto",
        "where embeddings are kept, so that each image is encoded once; for methods that leave the encoder "
        "as it is",
        "Machine",
    )
    cache_half: bool = setting(
        False, "keep embeddings in float16: half the space, rounded to three digits", "Machine"
    )
    cache_limit: ByteSize = setting(
        "50GiB", "what embeddings on disk may take, those of other runs included", "Machine"
    )
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
    group: str | None = setting(None, f"{_GROUP} (default: the run's, on its own data)", "Data")
    protocol: tuple[str, ...] = setting(
        ("default",),
        "how scores are taken, comma-separated; the first is shown first",
        "Scores",
        choices="protocols",
        min_length=1,
    )
    surface: bool = setting(False, "also score borders: 95 % Hausdorff distance and surface Dice", "Scores")
    spacing: tuple[float, float] | None = setting(
        None,
        "distance of two pixels, or of two rows and of two columns: the unit of --surface (default: 1)",
        "Scores",
    )
    tolerance: float | None = setting(
        None, "distance that surface Dice forgives, in the unit of --spacing (default: 1)", "Scores", ge=0
    )
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
    prompt_class: str | None = setting(
        None, "class that clicks and the box are taken from (default: the run's)", "Prompt"
    )
    overlays: int = setting(8, "how many overlays to write, the worst first", "Output", ge=0)
    batch_size: int = setting(4, "images that pass the model at once", "Machine", ge=1)
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device", "Machine")
    attention: AttentionKind = setting("auto", _ATTENTION, "Machine")

    @field_validator("group")
    @classmethod
    def _check_group(cls, value: str | None) -> str | None:
        return _group(value)

    @field_validator("protocol", mode="before")
    @classmethod
    def _split_protocols(cls, value: Any) -> Any:
        return split_words(value)

    @field_validator("protocol")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a protocol that is named twice."""
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"'{name}' is named twice")
        return value

    @field_validator("spacing", mode="before")
    @classmethod
    def _read_spacing(cls, value: Any) -> Any:
        """Read `0.5` as `0.5,0.5`: one distance is that of rows and of columns."""
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, int | float):
            parts = [parts]
        if parts is None:
            return None
        try:
            distances = [float(part) for part in parts]
        except (TypeError, ValueError):
            distances = []
        if len(distances) not in (1, 2) or not all(0 < distance < math.inf for distance in distances):
            raise ValueError("expected one distance above 0, or two: of rows, then of columns, as 0.5,0.25")
        return distances[0], distances[-1]


class CompareSettings(Settings):
    """Every setting of `samfit compare`; all others stand in the recipe."""

    recipe: Path = setting(
        ..., "YAML file of flags of train and evaluate and of lists that span a grid, or a name", "Data"
    )
    data: Path | None = setting(None, "folder of the data set (default: the recipe's)", "Data")
    output: Path = setting(..., "folder of the report and of its runs", "Output")
    cluster: Literal["here", "local", "slurm"] = setting(
        "here",
        "where runs take place: here; slurm: in its queue; local: here as in a queue, to try it",
        "Machine",
    )
    jobs: int | None = setting(
        None,
        "runs at the same time (default: one on each device of this machine; with slurm all)",
        "Machine",
        ge=1,
    )
    slurm: dict[str, str] | None = setting(
        None, "options of sbatch for each run, as partition=gpu,time=4:00:00", "Machine"
    )

    @field_validator("slurm", mode="before")
    @classmethod
    def _split_slurm(cls, value: Any) -> Any:
        """Read `partition=gpu,nodelist=a,b` as two options; a mapping is taken as it is."""
        if value is None or isinstance(value, dict):
            return value
        parts = [part.partition("=") for part in re.split(r",(?=[\w-]+=)", str(value))]
        names = [name.strip().removeprefix("--") for name, _, _ in parts]
        if not all(
            re.fullmatch(_NAME, name) and sign for name, (_, sign, _) in zip(names, parts, strict=True)
        ):
            raise ValueError("expected options of sbatch as name=value,name=value, without --")
        if len(set(names)) < len(names):
            raise ValueError("an option is there twice")
        return {name: content.strip() for name, (_, _, content) in zip(names, parts, strict=True)}


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
    attention: AttentionKind = setting("auto", _ATTENTION, "Machine")


class PlanSettings(LoraOptions):
    """Every setting of `samfit plan`; what is None is as `samfit train` would choose it, or all there are."""

    backbone: str | None = setting(None, "backbone to plan for (default: all)", "Model", choices="backbones")
    method: str | None = setting(None, "method to plan for (default: all)", "Model", choices="methods")
    image_size: int | None = setting(
        None, "side of the model frame in pixels (default: the backbone's)", "Model", ge=16, le=4096
    )
    classes: int = setting(1, "how many classes", "Data", ge=1)
    batch_size: int | None = setting(
        None, "images that pass at once on one device (default: the method's batch)", "Training", ge=1
    )
    precision: Precision | None = setting(None, "numbers of the forward pass (default: both)", "Machine")
    checkpointing: Literal["on", "off"] | None = setting(
        None, "compute parts of the model again in backward (default: both)", "Machine"
    )
    cache: Literal["on", "off"] | None = setting(
        None, "read the embeddings of the images, encoded beforehand (default: both)", "Machine"
    )
    accelerator: Literal["cpu", "gpu"] = setting("gpu", "kind of device; none is needed here", "Machine")
    attention: AttentionKind = setting("auto", _ATTENTION, "Machine")
    vram: ByteSize | None = setting(
        None, "memory of the device, as 8GiB: show what fits, and how large a batch", "Machine"
    )


class ImportSettings(Settings):
    """Every setting of `samfit import`."""

    file: Path = setting(..., "checkpoint of a published training code", "Data")
    output: Path = setting(..., "folder of the run; must not hold one yet", "Run")
    overwrite: bool = setting(False, "replace the run that --output holds", "Run")
    classes: tuple[str, ...] = setting(
        ("foreground",),
        "names of the classes, comma-separated, in the order of the checkpoint's outputs: the file does "
        "not hold them, nor how many there are",
        "Model",
    )
    fit: Literal["pad", "squeeze"] = setting(
        "squeeze", "how an image meets the square; the published training codes squeeze", "Model"
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        return _split_names(value)


class ExportSettings(Settings):
    """Every setting of `samfit export`."""

    run: Path = setting(..., "folder of the run", "Data")
    output: Path | None = setting(None, "file to write (default: RUN/published…)", "Output")
    format: Literal["pth", "safetensors"] = setting(
        "pth", "pth: as the published code saves and loads it", "Output"
    )
    overwrite: bool = setting(False, "replace the file that is already there", "Output")


class MergeSettings(Settings):
    """Every setting of `samfit merge`."""

    run: Path = setting(..., "folder of the run", "Data")
    output: Path | None = setting(
        None, "file, or for transformers folder, to write (default: RUN/merged…)", "Output"
    )
    format: Literal["pth", "safetensors", "transformers"] = setting(
        "pth", "transformers: a folder for SamModel.from_pretrained", "Output"
    )
    overwrite: bool = setting(False, "replace what is already there", "Output")


ValueT = TypeVar("ValueT")


def resolved(value: ValueT | None) -> ValueT:
    """Return a setting that `samfit.defaults` has filled in."""
    assert value is not None, "the settings must be resolved"
    return value
