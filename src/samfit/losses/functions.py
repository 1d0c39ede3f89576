"""Losses as pure functions of logits, target and valid area.

Each takes `logits` (B, C, L, L), `target` (B, C, L, L) in 0…1 (soft masks are taken as they are) and `valid`
(B, 1, L, L), 1 on the image and 0 on padding, which is left out of every sum; an image of nothing but padding
costs nothing. Each returns named parts (B,): one number an image, the mean over its classes; the loss of the
image is their sum. Everything is computed in float32, whatever the logits come in. Nothing depends on the
values of tensors, so that a step can be traced.
"""

import torch.nn.functional as F
from torch import Tensor

LARGEST_LOG = 100.0
"""The published BCE cuts each logarithm here (torch's `BCELoss`)."""
IOU_SMOOTH = 1e-3
"""Added to intersection and union in CAD, so that nothing predicted on an empty target costs nothing."""
FOREGROUND_WEIGHT = 2.0
"""How much a foreground pixel counts in Medical SAM Adapter."""
DICE_SMOOTH = 1e-5
"""Added to both sides of the Dice fraction, as monai does."""


def bce_iou(logits: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """CAD's loss: binary cross-entropy of probabilities (`bce`) plus soft IoU loss (`iou`).

    The published code takes logarithms of rounded probabilities and cuts them at -100. Cutting the logits at
    ±100 is the same function with the same zero gradient beyond, but loses nothing to rounding below.
    """
    logits = logits.float()
    pixels = F.binary_cross_entropy_with_logits(
        logits.clamp(-LARGEST_LOG, LARGEST_LOG), target, reduction="none"
    )
    return {
        "bce": _mean(pixels, valid).mean(dim=1),
        "iou": soft_iou_loss(logits.sigmoid(), target, valid).mean(dim=1),
    }


def bce_weighted(logits: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Medical SAM Adapter's loss: binary cross-entropy in which foreground counts twice (`bce`)."""
    weight = logits.new_tensor(FOREGROUND_WEIGHT).float()
    pixels = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none", pos_weight=weight)
    return {"bce": _mean(pixels, valid).mean(dim=1)}


def dice_ce(logits: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Soft Dice loss with squared terms (`dice`) plus binary cross-entropy (`ce`).

    For one class this is monai's `DiceCELoss(sigmoid=True, squared_pred=True)`. For several, monai takes the
    cross-entropy of a softmax over the classes; here classes may overlap, so each has its own sigmoid.
    """
    logits = logits.float()
    pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability, truth = logits.sigmoid() * valid, target * valid
    overlap = _sum(probability * truth)
    total = _sum(probability.square()) + _sum(truth.square())
    dice = 1 - (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)
    return {"dice": dice.mean(dim=1), "ce": _mean(pixels, valid).mean(dim=1)}


def soft_iou_loss(probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return CAD's soft IoU loss (B, C) of probabilities (B, C, L, L): 1 - intersection / union, smoothed."""
    probability, truth = probability * valid, target * valid
    overlap = _sum(probability * truth)
    union = _sum(probability) + _sum(truth) - overlap
    return 1 - (overlap + IOU_SMOOTH) / (union + IOU_SMOOTH)


def _sum(pixels: Tensor) -> Tensor:
    return pixels.sum(dim=(-2, -1))


def _mean(pixels: Tensor, valid: Tensor) -> Tensor:
    return _sum(pixels * valid) / _sum(valid).clamp(min=1)
