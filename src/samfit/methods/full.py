"""`full`: image encoder and mask decoder are trained, the prompt encoder is frozen."""

from samfit.backbones.base import Backbone
from samfit.methods.adapter import Adapter
from samfit.options import MethodOptions


def build(backbone: Backbone, options: MethodOptions, first_block: int | None) -> Adapter:
    """Add nothing to the backbone."""
    return Adapter()
