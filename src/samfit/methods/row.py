"""One row of the table of methods: traits instead of names, so that nothing else asks which method it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from samfit.errors import SettingError
from samfit.options import BlockOptions, MethodOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from samfit.backbones.base import Backbone
    from samfit.backbones.card import BackboneCard
    from samfit.frame import Frame
    from samfit.methods.adapter import Adapter


@dataclass(frozen=True)
class MethodRow:
    """How a backbone is adapted."""

    name: str
    summary: str
    module: str
    """Module with `build(backbone, options, first_block)` and, where `reads_image`, `read(image, frame)`."""
    paper: str
    trains: tuple[str, ...]
    """Parts of the backbone that are trained beside the method's own modules."""
    gradient_from: int | None
    """First encoder block that a gradient reaches, -1 for the patch embedding before it; None where the
    encoder runs under `no_grad`."""
    identity_at_start: bool
    """Whether the adapted model equals the base before the first step."""
    reads_image: bool
    """Whether the method needs the original image beside the model frame."""
    mergeable: bool
    """Whether the adapted model can become a plain backbone."""
    defaults: Mapping[str, Any]
    """Settings that are right for this method, by field name."""
    options: type[MethodOptions] = MethodOptions
    batch_statistics: bool = False
    """Whether what an image becomes in training depends on the others that pass with it."""
    loss_fraction: int = 2
    """The loss is taken at the image size divided by this, unless `loss_size` says otherwise."""
    without_gradient: Mapping[str, str] = field(default_factory=dict)
    """Trained tensors whose gradient is nothing but rounding, as patterns of names (`fnmatch`) in the adapted
    model, with the reason."""

    @property
    def caches_embedding(self) -> bool:
        """Whether the embedding of an image can be computed once: nothing in the encoder is trained."""
        return self.gradient_from is None

    def first_block(self, options: MethodOptions, card: "BackboneCard") -> int | None:
        """Return `gradient_from` with these options on this backbone.

        Raises `SettingError` if the backbone has not as many blocks as `late_blocks` says.
        """
        late = options.late_blocks if isinstance(options, BlockOptions) else None
        if late is None:
            return self.gradient_from
        if late > card.depth:
            raise SettingError(f"--late-blocks {late}: {card.name} has {card.depth} blocks")
        return card.depth - late

    def require_mergeable(self) -> None:
        """Raise `SettingError` if the method adds what no plain backbone has."""
        if not self.mergeable:
            raise SettingError(
                f"{self.name} cannot be merged: it adds layers that no plain backbone has; keep the run, or "
                "write it in the names of the published code with 'samfit export'"
            )

    def build(self, backbone: "Backbone", options: MethodOptions) -> "Adapter":
        """Make the method's own modules for a backbone."""
        first_block = self.first_block(options, backbone.card)
        return import_module(self.module).build(backbone, options, first_block)

    @property
    def reader(self) -> "Callable[[NDArray[np.uint8], Frame], Tensor] | None":
        """What turns an original image (H, W, 3) into the method's extra input, or None."""
        return import_module(self.module).read if self.reads_image else None
