"""`--precision bf16`: what is stored and computed in bfloat16, and what is not.

Frozen weights of the image encoder and the mask decoder are stored in bfloat16. What passes both is too: the
patch embedding's convolution makes tokens of bfloat16, and positions are added in it. Trained weights, their
gradients and the optimizer's state stay in float32; torch's autocast rounds them for products and
convolutions, and norms and losses are summed in float32. The prompt encoder stays in float32 throughout:
bfloat16 would move a place by a pixel.
"""

import torch

from samfit.methods.adapted import AdaptedModel
from samfit.settings import Precision

_HALVED = ("image_encoder.", "mask_decoder.")


def autocast(precision: Precision, device: str | torch.device) -> torch.autocast:
    """Return the context in which a model computes in this precision on a device."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def store_frozen(model: AdaptedModel, precision: Precision) -> None:
    """Store the frozen weights of encoder and decoder as the precision has them; float32 changes nothing.

    The rounding is for good: a model that was stored in bfloat16 is to be used under `autocast` from then on.
    What an adapter file holds is trained, and is not touched.
    """
    if precision == "32":
        return
    for name, parameter in model.backbone.named_parameters():
        if name.startswith(_HALVED) and not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
