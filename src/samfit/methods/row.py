"""One row of the table of methods: traits instead of names, so that nothing else asks which method it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from samfit.backbones.base import Backbone
    from samfit.frame import Frame
    from samfit.methods.adapted import Adapter


@dataclass(frozen=True)
class MethodRow:
    """How a backbone is adapted."""

    name: str
    summary: str
    module: str
    """Module under `samfit.methods` with `build(backbone)` and, where `reads_image`, `read(image, frame)`."""
    paper: str
    trains: tuple[str, ...]
    """Parts of the backbone that are trained beside the method's own modules."""
    gradient_from: int | None
    """First encoder block that a gradient reaches; None where the encoder runs under `no_grad`."""
    identity_at_start: bool
    """Whether the adapted model equals the base before the first step."""
    reads_image: bool
    """Whether the method needs the image beside the embedding."""
    caches_embedding: bool
    """Whether the embedding of an image can be computed once."""
    defaults: Mapping[str, Any]
    """Settings that are right for this method, by field name."""
    loss_fraction: int = 2
    """The loss is taken at the image size divided by this, unless `loss_size` says otherwise."""

    def build(self, backbone: "Backbone") -> "Adapter | None":
        """Make the method's own modules for a backbone, or None if it adds none."""
        return import_module(f"samfit.methods.{self.module}").build(backbone)

    @property
    def reader(self) -> "Callable[[NDArray[np.uint8], Frame], Tensor] | None":
        """What turns an original image (H, W, 3) into the method's extra input, or None."""
        return import_module(f"samfit.methods.{self.module}").read if self.reads_image else None
