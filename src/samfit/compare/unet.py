"""A plain U-Net, trained from scratch on the same images and for as many steps as the runs: what SAM adds."""

import copy
import math
import time
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from samfit.backbones import card_of
from samfit.compare.jobs import Job
from samfit.compare.plain import preparation, write_scores, write_summary
from samfit.data.batches import ScoredSet, TrainingSet, join
from samfit.data.order import StepOrder
from samfit.engine.devices import open_fabric, peak_memory
from samfit.engine.logs import write_metrics
from samfit.engine.scoring import means, score_set
from samfit.engine.training import look_at
from samfit.errors import SettingError
from samfit.frame import Frame
from samfit.losses import loss_function
from samfit.runs import RunFolder
from samfit.settings import TrainSettings, resolved
from samfit.step import training_step

LEARNING_RATE = 1e-3
"""The highest; it falls to 0 as a cosine. A U-Net from scratch needs more than an adapter."""
CHANNELS = (16, 32, 64, 128, 256)
"""Of each level; each halves the resolution of the one before."""


def budget(settings: TrainSettings, images: int) -> int:
    """Return how many optimizer steps a training on so many images takes at most."""
    steps = resolved(settings.epochs) * -(-images // resolved(settings.batch_size))
    return min(steps, settings.max_steps or steps)


class UNet(torch.nn.Module):
    """MONAI's U-Net, called as an adapted model is; it looks at the frame alone.

    Raises `SettingError` if MONAI is not installed.
    """

    def __init__(self, classes: int):
        super().__init__()
        if find_spec("monai") is None:
            raise SettingError("the U-Net is MONAI's, which is not installed; pip install 'samfit[metrics]'")
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
    size = resolved(settings.image_size)
    frame = Frame(size, card.mean, card.std, resolved(settings.fit), card.resampling)
    prepared = preparation(job, data, frame)
    training = TrainingSet(data.training, prepared, loss_size=size, augment=settings.augment)
    validation = ScoredSet(data.validation, prepared)
    loss = loss_function(resolved(settings.loss))
    order = StepOrder(len(data.training), resolved(settings.batch_size), 1, settings.seed)
    steps = budget(settings, len(data.training))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _falling(step, steps))
    best, best_dice, rows = copy.deepcopy(model.state_dict()), -math.inf, []
    best_epoch = taken = 0
    while taken < steps:
        began, epoch = time.perf_counter(), len(rows)
        draws = [part for parts in order.epoch(epoch) for part in parts][: steps - taken]
        batches = DataLoader(training, batch_sampler=draws, collate_fn=join, num_workers=settings.workers)
        model.train()
        total = 0.0
        for batch in batches:
            result = training_step(model, frame, batch.to(fabric.device), loss)
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
            schedule.step()
            total += float(result.loss.detach())
        taken += len(draws)
        scores = score_set(model.eval(), frame, validation, fabric, resolved(settings.batch_size))
        scored = means(data.found.classes, scores)
        rows.append(_row(epoch, total / len(draws), scored, began, fabric.device))
        if scored["dice"] > best_dice:
            best, best_dice, best_epoch = copy.deepcopy(model.state_dict()), scored["dice"], len(rows)
    write_metrics(RunFolder(job.folder).metrics, rows)
    model.load_state_dict(best)
    peak = peak_memory(fabric.device)
    write_scores(job, data, model.eval(), frame, fabric)
    cost = {
        "best_epoch": best_epoch,
        "epochs": len(rows),
        "steps": taken,
        "trained_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_bytes": peak,
        "peak_bytes_are": "allocated on the device"
        if fabric.device.type == "cuda"
        else "resident in the process",
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }
    write_summary(job, data, cost)


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
