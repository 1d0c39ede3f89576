"""One training step and one prediction as plain functions of tensors: no engine, no files."""

from collections.abc import Callable

import torch
from torch import Tensor

from samfit.frame import Frame
from samfit.losses import LossFunction
from samfit.types import Batch, Prompts, StepResult

Model = Callable[..., Tensor]
"""(frame, extra, prompts, weight, embedding) to low-resolution logits (B, C, 4g, 4g)."""


def training_step(model: Model, frame: Frame, batch: Batch, loss_function: LossFunction) -> StepResult:
    """Run the model on a batch and return its loss, ready for `backward`.

    The loss is taken at the size of `batch.target`, each image weighted by its share.
    """
    low = model(batch.frame, batch.extra, batch.prompts, batch.weight, batch.embedding)
    logits = frame.upsample(low.float(), batch.target.shape[-1])
    parts = {
        name: (part * batch.weight).sum()
        for name, part in loss_function(logits, batch.target, batch.valid).items()
    }
    loss = torch.stack(list(parts.values())).sum()
    return StepResult(loss, {name: part.detach() for name, part in parts.items()}, logits.detach())


@torch.no_grad()
def prediction_step(
    model: Model,
    frame: Tensor | None,
    extra: Tensor | None,
    prompts: Prompts,
    embedding: Tensor | None = None,
) -> Tensor:
    """Return low-resolution logits (B, C, 4g, 4g) in float32; `frame.to_original` brings them home."""
    return model(frame, extra, prompts, None, embedding).float()
