"""The table of methods, and how one is attached. Importing this loads no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from samfit.config import parse
from samfit.declare import flag, typed
from samfit.errors import SettingError, unknown_name
from samfit.methods.row import MethodRow
from samfit.options import BlockOptions, LoraOptions

if TYPE_CHECKING:
    from samfit.backbones.base import Backbone
    from samfit.methods.adapted import AdaptedModel

_CAD_PROTOCOL: Mapping[str, Any] = {
    "prompt": "full-box",
    "loss": "bce-iou",
    "optimizer": "adamw",
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "batch_size": 4,
    "epochs": 20,
}
"""How arXiv 2409.15889 trains its method and its baseline, with a cosine over all steps."""

_MEDICAL_PROTOCOL: Mapping[str, Any] = {
    "prompt": "click",
    "loss": "bce-weighted",
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_size": 2,
    "epochs": 20,
}
"""How the code of arXiv 2304.12620 trains; its step schedule is made there and never stepped."""

PARAMETERS = Path(__file__).with_name("parameters.json")
"""Method to backbone to the number of trained parameters."""

METHODS: Mapping[str, MethodRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            MethodRow(
                name="decoder",
                summary="train the mask decoder, keep everything else",
                module="samfit.methods.decoder",
                paper="baseline of arXiv 2409.15889",
                trains=("mask_decoder",),
                gradient_from=None,
                identity_at_start=True,
                reads_image=False,
                mergeable=True,
                defaults=_CAD_PROTOCOL,
            ),
            MethodRow(
                name="cad",
                summary="a convolutional adapter beside the frozen encoder, and the mask decoder",
                module="samfit.methods.cad",
                paper="CAD, arXiv 2409.15889",
                trains=("mask_decoder",),
                gradient_from=None,
                identity_at_start=False,
                reads_image=True,
                mergeable=False,
                defaults=_CAD_PROTOCOL,
                batch_statistics=True,
                without_gradient={
                    "adapter.conv_block?.conv.bias": "the batch norm behind it takes every constant away"
                },
            ),
            MethodRow(
                name="sam-adapter",
                summary="projections of tokens and high frequencies, added before the blocks and after each",
                module="samfit.methods.sam_adapter",
                paper="SAM-Adapter, arXiv 2304.09148, in the form that arXiv 2409.15889 compares with",
                trains=("mask_decoder",),
                gradient_from=0,
                identity_at_start=False,
                reads_image=False,
                mergeable=False,
                defaults=_CAD_PROTOCOL,
                options=BlockOptions,
            ),
            MethodRow(
                name="medical-adapter",
                summary="two small adapters in every block, after attention and beside the MLP",
                module="samfit.methods.medical_adapter",
                paper="Medical SAM Adapter, arXiv 2304.12620",
                trains=("mask_decoder",),
                gradient_from=0,
                identity_at_start=False,
                reads_image=False,
                mergeable=False,
                defaults=_MEDICAL_PROTOCOL,
                options=BlockOptions,
                loss_fraction=4,
            ),
            MethodRow(
                name="lora",
                summary="low-rank updates of the attention's linear layers",
                module="samfit.methods.lora",
                paper="LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353; rsLoRA, arXiv 2312.03732",
                trains=("mask_decoder",),
                gradient_from=0,
                identity_at_start=True,
                reads_image=False,
                mergeable=True,
                defaults=_CAD_PROTOCOL,
                options=LoraOptions,
            ),
            MethodRow(
                name="full",
                summary="train the image encoder and the mask decoder",
                module="samfit.methods.full",
                paper="Kirillov et al. 2023, arXiv 2304.02643 (the model); no method of its own",
                trains=("image_encoder", "mask_decoder"),
                gradient_from=-1,
                identity_at_start=True,
                reads_image=False,
                mergeable=True,
                defaults=_CAD_PROTOCOL,
                options=BlockOptions,
            ),
        )
    }
)


def row_of(name: str) -> MethodRow:
    """Return the row of a method. Raises `SettingError` with the nearest name if there is none."""
    if name not in METHODS:
        raise SettingError(unknown_name("method", name, METHODS))
    return METHODS[name]


def trained_parameters(method: str) -> dict[str, int]:
    """Return how many parameters a method trains on each backbone, at their defaults and with one class.

    They were counted by benchmarks/count_parameters.py, because building a backbone needs torch.
    """
    return json.loads(PARAMETERS.read_text(encoding="utf-8"))[method]


def owners(option: str) -> tuple[str, ...]:
    """Return the names of the methods that have an option, by its field."""
    return tuple(name for name, row in METHODS.items() if option in row.options.model_fields)


def option_of_others(row: MethodRow, option: str, value: Any) -> str:
    """Return the message for an option that other methods have and this one has not."""
    own = ", ".join(map(flag, row.options.model_fields))
    return (
        f"{typed(option, value)}: an option of --method {', '.join(owners(option))}; "
        f"{row.name} {f'takes {own}' if own else 'has no options'}"
    )


def attach(
    backbone: "Backbone",
    method: str | MethodRow,
    *,
    classes: tuple[str, ...] = ("foreground",),
    seed: int = 0,
    **options: Any,
) -> "AdaptedModel":
    """Adapt a backbone with a method: add its modules (drawn from `seed`) and mark what is trained.

    `method`: a name of the table, or a row of your own. `options`: fields of the row's `options`.

    Raises `SettingError` for an unknown method, or for an option that it does not have or that does not fit.
    """
    from samfit.methods.adapted import AdaptedModel

    row = method if isinstance(method, MethodRow) else row_of(method)
    foreign = [name for name in options if name not in row.options.model_fields and owners(name)]
    if foreign:
        raise SettingError([option_of_others(row, name, options[name]) for name in foreign])
    chosen = parse(row.options, options, {})
    return AdaptedModel(backbone, row, classes=classes, options=chosen, seed=seed)
