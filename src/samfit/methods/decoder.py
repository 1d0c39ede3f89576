"""`decoder`: the mask decoder is trained, all else is frozen. The baseline of arXiv 2409.15889."""

from samfit.backbones.base import Backbone
from samfit.methods.adapter import Adapter
from samfit.options import MethodOptions


def build(backbone: Backbone, options: MethodOptions, first_block: int | None) -> Adapter:
    """Add nothing to the backbone."""
    return Adapter()
