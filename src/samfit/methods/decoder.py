"""`decoder`: the mask decoder is trained, all else is frozen. The baseline of arXiv 2409.15889."""

from samfit.backbones.base import Backbone


def build(backbone: Backbone) -> None:
    """Add nothing to the backbone."""
