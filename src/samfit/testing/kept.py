"""What a forward pass keeps for backward: where it was computed, and how many bytes it is."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from samfit.backbones.base import PATCH_EMBEDDING, Backbone
from samfit.methods.adapted import AdaptedModel
from samfit.testing.case import storage, tensors

BETWEEN = "between"
"""What is computed in no block and not by the patch embedding: what all blocks share, and the neck."""


@contextmanager
def kept_by_place(backbone: Backbone) -> Iterator[Counter[int | str]]:
    """Count the tensors that are kept while the block lasts, by the place where the encoder works.

    Places are `PATCH_EMBEDDING`, the index of each block, and `BETWEEN`.
    """
    place: int | str = BETWEEN
    kept: Counter[int | str] = Counter()

    def move(to: int | str) -> Callable[..., None]:
        def moved(*_: object) -> None:
            nonlocal place
            place = to

        return moved

    def embed(frame: Tensor) -> Tensor:
        move(PATCH_EMBEDDING)()
        tokens = unwatched(frame)
        move(BETWEEN)()
        return tokens

    def count(tensor: Tensor) -> Tensor:
        kept[place] += 1
        return tensor

    unwatched = backbone.embed
    hooks = []
    for index, block in enumerate(backbone.blocks):
        hooks.append(block.register_forward_pre_hook(move(index)))
        hooks.append(block.register_forward_hook(move(BETWEEN)))
    try:
        with patch.object(backbone, "embed", embed), saved_tensors_hooks(count, _same):
            yield kept
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def kept_bytes(model: AdaptedModel) -> Iterator[Callable[[], int]]:
    """Yield what tells the bytes that were kept inside the block, without the model's own tensors.

    The tensors are held as long as the block lasts: what dies in it counts too.
    """
    own = {storage(tensor) for tensor in tensors(model).values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if storage(tensor) not in own:
            kept[storage(tensor)] = tensor  # and with it its memory, so that no other gets the same address
        return tensor

    at_the_end: list[int] = []

    def count() -> int:
        return at_the_end[0] if at_the_end else sum(t.untyped_storage().nbytes() for t in kept.values())

    with saved_tensors_hooks(keep, _same):
        yield count
    at_the_end.append(count())
    kept.clear()


def _same(tensor: Tensor) -> Tensor:
    return tensor
