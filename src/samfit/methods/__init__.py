"""The table of methods, and how one is attached. Importing this loads no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from samfit.errors import SettingError, unknown_name
from samfit.methods.row import MethodRow

if TYPE_CHECKING:
    from samfit.backbones.base import Backbone
    from samfit.methods.adapted import AdaptedModel

_CAD_PROTOCOL: Mapping[str, Any] = {
    "prompt": "full-box",
    "loss": "bce-iou",
    "optimizer": "adamw",
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
    "batch_size": 4,
    "epochs": 20,
}
"""How arXiv 2409.15889 trains its method and its baseline."""

METHODS: Mapping[str, MethodRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            MethodRow(
                name="decoder",
                summary="train the mask decoder, keep everything else",
                module="decoder",
                paper="baseline of arXiv 2409.15889",
                trains=("mask_decoder",),
                gradient_from=None,
                identity_at_start=True,
                reads_image=False,
                caches_embedding=True,
                defaults=_CAD_PROTOCOL,
            ),
            MethodRow(
                name="cad",
                summary="a convolutional adapter beside the frozen encoder, and the mask decoder",
                module="cad",
                paper="CAD, arXiv 2409.15889",
                trains=("mask_decoder",),
                gradient_from=None,
                identity_at_start=False,
                reads_image=True,
                caches_embedding=True,
                defaults=_CAD_PROTOCOL,
            ),
        )
    }
)


def row_of(name: str) -> MethodRow:
    """Return the row of a method. Raises `SettingError` with the nearest name if there is none."""
    if name not in METHODS:
        raise SettingError(unknown_name("method", name, METHODS))
    return METHODS[name]


def attach(
    backbone: "Backbone", method: str, *, classes: tuple[str, ...] = ("foreground",), seed: int = 0
) -> "AdaptedModel":
    """Adapt a backbone with a method: add its modules (drawn from `seed`) and mark what is trained.

    Raises `SettingError` for an unknown method, or for more classes than the decoder has masks.
    """
    from samfit.methods.adapted import AdaptedModel

    return AdaptedModel(backbone, row_of(method), classes=classes, seed=seed)
