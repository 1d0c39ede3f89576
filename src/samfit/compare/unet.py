"""A plain U-Net, trained from scratch on the same images and for as many steps as the runs: what SAM adds."""

import copy
import math
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from samfit.backbones import card_of
from samfit.compare.jobs import Job, budget
from samfit.compare.plain import preparation, write_scores, write_summary
from samfit.data.batches import ScoredSet, TrainingSet, join
from samfit.data.order import StepOrder
from samfit.engine.devices import open_fabric, peak_in_words, peak_memory
from samfit.engine.logs import write_metrics
from samfit.engine.reading import reading
from samfit.engine.scoring import means, score_set
from samfit.engine.training import Data, look_at
from samfit.errors import RunError
from samfit.frame import Frame
from samfit.losses import LossFunction, loss_function
from samfit.runs import RunFolder
from samfit.settings import resolved
from samfit.step import training_step
from samfit.types import Batch

LEARNING_RATE = 1e-3
"""The highest; it falls to 0 as a cosine. A U-Net from scratch needs more than an adapter."""
CHANNELS = (16, 32, 64, 128, 256)
"""Of each level; each halves the resolution of the one before."""


class UNet(torch.nn.Module):
    """MONAI's U-Net, called as an adapted model is; it looks at the frame alone."""

    def __init__(self, classes: int):
        super().__init__()
        from monai.networks.nets.unet import UNet as Monais

        strides = (2,) * (len(CHANNELS) - 1)
        self.net = Monais(2, 3, classes, channels=CHANNELS, strides=strides, num_res_units=0)

    def forward(self, frame: Tensor, *_: object) -> Tensor:
        """Return logits (B, C, N, N) of a frame (B, 3, N, N)."""
        return self.net(frame)


def train_unet(job: Job) -> None:
    """Train the U-Net with data, frame, augmentation, loss and batches of a run, and score its best epoch."""
    settings = job.train
    data = look_at(settings)
    fabric = open_fabric(settings.accelerator)
    torch.manual_seed(settings.seed)
    model = UNet(len(data.found.classes)).to(fabric.device)
    card = card_of(settings.backbone)
    frame = Frame(resolved(settings.image_size), card.mean, card.std, resolved(settings.fit), card.resampling)
    cost = _fit(job, data, model, frame, fabric)
    write_scores(job, data, model.eval(), frame, fabric)
    write_summary(job, data, cost)


def _fit(job: Job, data: Data, model: UNet, frame: Frame, fabric: Fabric) -> dict[str, Any]:
    """Train until the budget is spent and go back to the best epoch; return what that took."""
    settings, device = job.train, fabric.device
    prepared, batch_size = preparation(job, data, frame), resolved(settings.batch_size)
    training = TrainingSet(data.training, prepared, loss_size=frame.size, augment=settings.augment)
    validation = ScoredSet(data.validation, prepared)
    order = StepOrder(len(data.training), batch_size, 1, settings.seed)
    loss = loss_function(resolved(settings.loss))
    descent = _Descent(model, frame, loss, budget(settings, len(data.training)))
    best, best_dice, rows = copy.deepcopy(model.state_dict()), -math.inf, []
    best_epoch = 0
    while descent.left:
        began = time.perf_counter()
        draws = [part for parts in order.epoch(len(rows)) for part in parts][: descent.left]
        batches = reading(training, settings.workers, batch_sampler=draws, collate_fn=join)
        model.train()
        losses = [descent.step(batch.to(device)) for batch in batches]
        scores = score_set(model.eval(), frame, validation, fabric, batch_size)
        scored = means(data.found.classes, scores)
        rows.append(_row(len(rows), sum(losses) / len(losses), scored, began, device))
        if scored["dice"] > best_dice:
            best, best_dice, best_epoch = copy.deepcopy(model.state_dict()), scored["dice"], len(rows)
    write_metrics(RunFolder(job.folder).metrics, rows)
    model.load_state_dict(best)
    return {
        "best_epoch": best_epoch,
        "epochs": len(rows),
        "steps": descent.taken,
        "trained_parameters": sum(parameter.numel() for parameter in model.parameters()),
        **peak_in_words(device),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }


class _Descent:
    """Takes a fixed number of optimizer steps, over which the learning rate falls."""

    def __init__(self, model: UNet, frame: Frame, loss: LossFunction, steps: int):
        self._model, self._frame, self._loss, self._steps = model, frame, loss, steps
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda n: _falling(n, steps))
        self.taken = 0

    @property
    def left(self) -> int:
        """How many steps are left."""
        return self._steps - self.taken

    def step(self, batch: Batch) -> float:
        """Take one step and return the loss before it. Raises `RunError` if that is no number."""
        result = training_step(self._model, self._frame, batch, self._loss)
        self._optimizer.zero_grad()
        result.loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self.taken += 1
        loss = float(result.loss.detach())
        if not math.isfinite(loss):
            raise RunError(
                f"the loss of the U-Net is no longer a number in step {self.taken}; 'beside: "
                "[mean-mask]' in the recipe leaves it out"
            )
        return loss


def _falling(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step, counted from 0."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _row(
    epoch: int, loss: float, scored: dict[str, float], began: float, device: torch.device
) -> dict[str, Any]:
    """Return the row of `metrics.csv` of an epoch that is done."""
    return {
        "epoch": epoch + 1,
        "loss": loss,
        **{f"validation_{name}": value for name, value in scored.items()},
        "seconds": round(time.perf_counter() - began, 3),
        "peak_bytes": peak_memory(device),
    }
