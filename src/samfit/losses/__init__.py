"""The table of losses. Importing it loads no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from samfit.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor", "Tensor"], dict[str, "Tensor"]]
"""(logits, target, valid) to named parts of the loss, each (B,)."""


@dataclass(frozen=True)
class LossRow:
    """One loss: what it is, where it comes from and the function that computes it."""

    name: str
    summary: str
    paper: str
    function: str
    """Name in `samfit.losses.functions`."""


LOSSES: Mapping[str, LossRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            LossRow(
                name="bce-iou",
                summary="binary cross-entropy plus soft IoU",
                paper="CAD, arXiv 2409.15889",
                function="bce_iou",
            ),
            LossRow(
                name="bce-weighted",
                summary="binary cross-entropy in which foreground counts twice",
                paper="Medical SAM Adapter, arXiv 2304.12620",
                function="bce_weighted",
            ),
            LossRow(
                name="dice-ce",
                summary="soft Dice with squared terms plus binary cross-entropy",
                paper="V-Net, arXiv 1606.04797 (Dice); equals monai's DiceCELoss for one class",
                function="dice_ce",
            ),
        )
    }
)


def loss_function(name: str) -> LossFunction:
    """Return the function of a loss: logits, target and valid area to named parts per image.

    All arguments have the shapes of `samfit.losses.functions`; the loss of an image is the sum of its parts.
    Raises `SettingError` with the nearest name if there is no such loss.
    """
    if name not in LOSSES:
        raise SettingError(unknown_name("loss", name, LOSSES))
    return getattr(import_module("samfit.losses.functions"), LOSSES[name].function)
