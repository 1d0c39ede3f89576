"""The training loop. It reads from top to bottom; every step is a function of (seed, epoch, step).

A run that was interrupted goes on from `Position` and ends with the same weights as one that was not.
"""

import hashlib
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from lightning_fabric import Fabric

from samfit import processes
from samfit.data.batches import ScoredSet, TrainingSet, join
from samfit.data.order import Draw, StepOrder
from samfit.data.prompts import prompt_seed
from samfit.engine.devices import peak_memory
from samfit.engine.embeddings import Embeddings, asked_for
from samfit.engine.epoch_bar import EpochBar
from samfit.engine.logs import Logger, write_metrics
from samfit.engine.reading import reading
from samfit.engine.samples import write_samples
from samfit.engine.scoring import ImageScore, means, score_set
from samfit.engine.stepping import AtOnce, NothingLess, Stepper
from samfit.engine.stopping import StopRequest
from samfit.errors import Interrupted, RunError, to_call
from samfit.losses import loss_function
from samfit.methods.adapted import AdaptedModel
from samfit.methods.precision import autocast
from samfit.metrics.protocols import DEFAULT
from samfit.runs import RunFolder, load_state, read_checkpoint, save_adapter, save_checkpoint
from samfit.settings import TrainSettings, resolved
from samfit.types import Batch

logger = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a run stands: everything beside weights and optimizer state that the next step depends on."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Optimizer steps of the current epoch that are done."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sums of the parts of the loss over the steps of the current epoch."""
    best_epoch: int = 0
    best_dice: float = -1.0
    waited: int = 0
    """Epochs since the best one."""
    seconds: float = 0.0
    """Time of the current epoch so far."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """Rows of metrics.csv."""
    at_once: dict[str, Any] = field(default_factory=dict)
    """Fields of `AtOnce` since memory ran out for the last time; empty if it never did."""


@dataclass(frozen=True)
class Task:
    """Everything that a training works on."""

    settings: TrainSettings
    folder: RunFolder
    model: AdaptedModel
    """On the device."""
    training: TrainingSet
    validation: ScoredSet
    fingerprint: str
    """Hash of the data, so that a run does not go on with other data."""
    embeddings: Embeddings | None
    """What is looked up instead of encoding images, or None."""


class Loop:
    """Trains a model on the devices of a Fabric and keeps its run folder."""

    def __init__(self, task: Task, fabric: Fabric, tool: Logger | None = None):
        self.task, self.fabric, self.tool = task, fabric, tool
        self.settings = task.settings
        self.frame = task.model.backbone.frame
        self.epochs = resolved(self.settings.epochs)
        self.order = StepOrder(
            count=len(task.training.samples),
            batch_size=resolved(self.settings.batch_size),
            accumulate=self.settings.accumulate,
            seed=self.settings.seed,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        self.steps = min(self.epochs * self.order.steps, self.settings.max_steps or sys.maxsize)
        # Fabric's own bf16 would round the coordinates of prompts too, to several pixels.
        self.autocast = autocast(self.settings.precision, fabric.device)
        self.model = task.model
        self.optimizer = self._make_optimizer()
        self.stepper = Stepper(
            self.model,
            self.optimizer,
            loss_function(resolved(self.settings.loss)),
            device=fabric.device,
            images=self.order.most_at_once,
            autocast=self.autocast,
        )
        self.position = Position()
        self.stop = StopRequest()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[resolved(self.settings.optimizer)]
        return kind(
            self.model.trained().values(),
            lr=resolved(self.settings.learning_rate),
            weight_decay=resolved(self.settings.weight_decay),
            fused=True,  # the stepper needs it
        )

    def resume(self) -> None:
        """Go back to where `last.ckpt` was written."""
        path = self.task.folder.checkpoint
        content = read_checkpoint(path)
        load_state(path, self.task.model.adapter_state(), content["state"])
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            self.position = Position(**content["position"])
            if self.position.at_once:
                self.stepper.at_once = AtOnce(**self.position.at_once)
        except (TypeError, ValueError, KeyError) as error:
            raise RunError(f"{path} does not fit this run or this version of samfit: {error}") from error

    def run(self) -> Position:
        """Train to the end. Raises `Interrupted` after Ctrl-C or SIGTERM, with the checkpoint written."""
        self._require_equal_weights()
        new = self._steps_done() == 0
        with self.stop:
            if new:
                self._save_checkpoint()
            with self._without_encoder(), EpochBar(self.epochs, show=self.fabric.is_global_zero) as bar:
                if new:
                    self._write_samples()
                while not self._finished():
                    self._train_epoch(bar)
                    self._close_epoch(self._validate())
        return self.position

    @contextmanager
    def _without_encoder(self) -> Iterator[None]:
        """Encode beforehand what the run will ask for, and do without the encoder then, where that can be."""
        embeddings = self.task.embeddings
        if embeddings is None:
            yield
            return
        samples = self.task.training.samples, self.task.validation.samples
        embeddings.fill(asked_for(self.settings, *samples, self._steps_done()), self._stop_if_asked)
        with embeddings.without_encoder():
            yield

    def _require_equal_weights(self) -> None:
        """Raise `RunError` if processes, which exchange nothing but gradients, do not start alike."""
        if self.fabric.world_size == 1:
            return
        digest = hashlib.sha256(self.model.backbone.weights_hash.encode())
        for tensor in self.model.adapter_state().values():
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        if not processes.all_alike(digest.hexdigest()):
            raise RunError(
                "the processes of this training do not start from the same weights: give all machines the "
                f"same file as --weights (now {self.settings.weights}), and the same versions of everything"
            )

    def _finished(self) -> bool:
        patience = self.settings.patience
        stopped_early = patience is not None and self.position.waited >= patience
        return stopped_early or self.steps_taken >= self.steps

    def _train_epoch(self, bar: EpochBar) -> None:
        position = self.position
        self.model.train()
        bar.start(position.epoch + 1, position.step, self.order.steps)
        began = time.perf_counter()
        for parts in self._batches(position.epoch, position.step):
            losses = self._step(parts)
            position.step += 1
            for name, value in losses.items():
                position.losses[name] = position.losses.get(name, 0.0) + value
            bar.advance(sum(position.losses.values()) / position.step)
            now = time.perf_counter()
            position.seconds, began = position.seconds + now - began, now
            self._stop_if_asked()
            every = self.settings.checkpoint_every
            if every is not None and self._steps_done() % every == 0:
                self._save_checkpoint()

    def _batches(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        """Yield the parts of every step, read beside the training if there are workers."""
        steps = list(self.order.epoch(epoch, start))[: self.steps - self._steps_done()]
        batches: Iterator[Batch] = reading(
            self.task.training,
            self.settings.workers,
            batch_sampler=[part for parts in steps for part in parts],
            collate_fn=join,
        )
        for parts in steps:
            yield [self._with_embeddings(next(batches), draws) for draws in parts]

    def _with_embeddings(self, batch: Batch, draws: Sequence[Draw]) -> Batch:
        """Look up what the encoder made of a batch, if that was kept."""
        embeddings = self.task.embeddings
        if embeddings is None:
            return batch
        found = [embeddings.of(self.task.training.shown(draw)) for draw in draws]
        return replace(batch, embedding=torch.cat(found))

    def _step(self, parts: Sequence[Batch]) -> dict[str, float]:
        """Take one optimizer step; return the parts of the loss of the whole batch, over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self._steps_done())
        position = self.position
        seed = prompt_seed(self.settings.seed, f"step {position.step}", position.epoch)
        name = f"step {position.step + 1} of epoch {position.epoch + 1}"
        try:
            losses = self.stepper.take(parts, seed, name)
        except NothingLess as error:
            raise RunError(self._nothing_less(name)) from error
        if self.stepper.at_once.shortages:
            position.at_once = asdict(self.stepper.at_once)
        if not all(map(math.isfinite, losses.values())):
            raise RunError(
                f"the loss is no longer a number in epoch {position.epoch + 1}: try a lower "
                f"--learning-rate (now {self.settings.learning_rate}), or --precision 32"
            )
        return losses

    def _nothing_less(self, step: str) -> str:
        settings = self.settings
        return (
            f"out of memory in {step}, though one image passes at once, in small chunks: choose a smaller "
            f"--image-size (now {settings.image_size}), another --method (now {settings.method}) or "
            f"--backbone (now {settings.backbone}); 'samfit plan --vram SIZE' lists what fits. On a larger "
            f"device the run goes on from its last checkpoint with 'samfit train --resume "
            f"{self.task.folder.path}'"
        )

    @property
    def steps_taken(self) -> int:
        """Optimizer steps of the epochs that are done, the last of which `max_steps` may have cut short."""
        return min(self.position.epoch * self.order.steps, self.steps)

    def _steps_done(self) -> int:
        return self.position.epoch * self.order.steps + self.position.step

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, from 0: a linear rise, then the schedule."""
        highest, warmup = resolved(self.settings.learning_rate), self.settings.warmup
        if step < warmup:
            return highest * (step + 1) / warmup
        if self.settings.schedule == "constant":
            return highest
        return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def _validate(self) -> list[ImageScore]:
        # Processes score different numbers of images: they cannot agree to stop in between.
        model, images = self.model.eval(), self.stepper.at_once.images
        watch = (lambda *_: self._stop_if_asked()) if self.fabric.world_size == 1 else None
        with self.autocast:
            return score_set(model, self.frame, self.task.validation, self.fabric, images, watch=watch)

    def _close_epoch(self, scores: list[ImageScore]) -> None:
        """Write the row, the best adapter, the samples and the checkpoint of an epoch that is done."""
        position = self.position
        validation = {
            f"validation_{name}": value for name, value in means(self.task.model.classes, scores).items()
        }
        dice = validation["validation_dice"]
        losses = {name: value / position.step for name, value in position.losses.items()}
        position.epoch += 1
        row = {
            "epoch": position.epoch,
            "loss": sum(losses.values()),
            **{f"loss_{name}": value for name, value in losses.items()},
            **validation,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(position.seconds, 3),
            "peak_bytes": peak_memory(self.fabric.device),
        }
        position.rows.append(row)
        better = dice > position.best_dice
        if better:
            position.best_epoch, position.best_dice, position.waited = position.epoch, dice, 0
        else:
            position.waited += 1
        position.step, position.losses, position.seconds = 0, {}, 0.0
        if self.fabric.is_global_zero:
            if better:
                save_adapter(self.task.folder.adapter, self.task.model)
            write_metrics(self.task.folder.metrics, position.rows)
            if self.tool is not None:
                self.tool.log(row)
        if position.epoch % self.settings.samples_every == 0 or self._finished():
            self._write_samples()
        self._save_checkpoint()
        logger.info(
            "epoch %d of %d: loss %.4f, validation Dice %.4f (%s%s), %.1f s",
            position.epoch,
            self.epochs,
            row["loss"],
            dice,
            DEFAULT.name,
            ", the best" if better else "",
            row["seconds"],
        )

    def _write_samples(self) -> None:
        if self.fabric.is_global_zero:
            path = self.task.folder.samples / f"epoch_{self.position.epoch:04d}.png"
            with self.autocast:
                write_samples(path, self.task.model.eval(), self.frame, self.task.validation, self.fabric)

    def _save_checkpoint(self) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.task.folder.checkpoint,
                {
                    "position": asdict(self.position),
                    "fingerprint": self.task.fingerprint,
                    "base_sha256": self.task.model.backbone.weights_hash,
                    "state": self.task.model.adapter_state(),
                    "optimizer": self.optimizer.state_dict(),
                },
            )
        self.fabric.barrier()

    def _stop_if_asked(self) -> None:
        """Stop all processes at the same place if any was asked to."""
        if not processes.anywhere(self.stop.signal is not None, self.fabric.device):
            return
        self._save_checkpoint()
        if not self.fabric.is_global_zero:
            raise SystemExit(0)  # the first process says why; Lightning would kill it if another failed
        # Ctrl-C reaches every process; what another alone was sent is a SIGTERM.
        status = 128 + (self.stop.signal or signal.SIGTERM)
        raise Interrupted(
            f"stopped in epoch {self.position.epoch + 1}; go on with "
            + to_call("train", "--resume", self.task.folder.path),
            status,
        )
