"""The training loop. It reads from top to bottom; every step is a function of (seed, epoch, step).

A run that was interrupted goes on from `Position` and ends with the same weights as one that was not.
"""

import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from samfit.data.batches import ScoredSet, TrainingSet, join
from samfit.data.order import StepOrder
from samfit.data.prompts import prompt_seed
from samfit.engine.logs import Logger, write_metrics
from samfit.engine.samples import write_samples
from samfit.engine.scoring import ImageScore, means, score_set
from samfit.engine.stopping import StopRequest
from samfit.errors import Interrupted, RunError
from samfit.losses import loss_function
from samfit.methods.adapted import AdaptedModel
from samfit.runs import RunFolder, load_state, read_checkpoint, save_adapter, save_checkpoint
from samfit.settings import TrainSettings, resolved
from samfit.step import training_step
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


@dataclass(frozen=True)
class Task:
    """Everything that a training works on."""

    settings: TrainSettings
    folder: RunFolder
    model: AdaptedModel
    training: TrainingSet
    validation: ScoredSet
    fingerprint: str
    """Hash of the data, so that a run does not go on with other data."""


class Loop:
    """Trains a model on the devices of a Fabric and keeps its run folder."""

    def __init__(self, task: Task, fabric: Fabric, tool: Logger | None = None):
        self.task, self.fabric, self.tool = task, fabric, tool
        self.settings = task.settings
        self.frame = task.model.backbone.frame
        self.loss_function = loss_function(resolved(self.settings.loss))
        self.epochs = resolved(self.settings.epochs)
        self.order = StepOrder(
            count=len(task.training.samples),
            batch_size=resolved(self.settings.batch_size),
            accumulate=self.settings.accumulate,
            seed=self.settings.seed,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        self.model, self.optimizer = fabric.setup(task.model, self._make_optimizer())
        # Fabric's own bf16 would round the coordinates of prompts too, to several pixels.
        self.autocast = torch.autocast(
            fabric.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
        )
        self.position = Position()
        self.stop = StopRequest()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[resolved(self.settings.optimizer)]
        return kind(
            self.task.model.trained().values(),
            lr=resolved(self.settings.learning_rate),
            weight_decay=resolved(self.settings.weight_decay),
        )

    def resume(self) -> None:
        """Go back to where `last.ckpt` was written."""
        path = self.task.folder.checkpoint
        content = read_checkpoint(path)
        load_state(path, self.task.model.adapter_state(), content["state"])
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            self.position = Position(**content["position"])
        except (TypeError, ValueError, KeyError) as error:
            raise RunError(f"{path} does not fit this run or this version of samfit: {error}") from error

    def run(self) -> Position:
        """Train to the end. Raises `Interrupted` after Ctrl-C or SIGTERM, with the checkpoint written."""
        with self.stop, self._progress() as progress:
            if self.position.epoch == self.position.step == 0:
                self._save_checkpoint()
                self._write_samples()
            while not self._finished():
                self._train_epoch(progress)
                self._close_epoch(self._validate())
        return self.position

    def _finished(self) -> bool:
        patience = self.settings.patience
        stopped_early = patience is not None and self.position.waited >= patience
        return stopped_early or self.position.epoch >= self.epochs

    def _train_epoch(self, progress: "_EpochProgress") -> None:
        position = self.position
        self.model.train()
        progress.start(position, self.order.steps)
        began = time.perf_counter()
        for parts in self._batches(position.epoch, position.step):
            torch.manual_seed(prompt_seed(self.settings.seed, f"step {position.step}", position.epoch))
            losses = self._step(parts)
            position.step += 1
            for name, value in losses.items():
                position.losses[name] = position.losses.get(name, 0.0) + value
            progress.advance(position)
            now = time.perf_counter()
            position.seconds, began = position.seconds + now - began, now
            self._stop_if_asked()
            every = self.settings.checkpoint_every
            if every is not None and self._steps_done() % every == 0:
                self._save_checkpoint()

    def _batches(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        """Yield the parts of every step, read beside the training if there are workers."""
        steps = list(self.order.epoch(epoch, start))
        loader: DataLoader[Batch] = DataLoader(
            self.task.training,
            batch_sampler=[part for parts in steps for part in parts],
            collate_fn=join,
            num_workers=self.settings.workers,
        )
        batches = iter(loader)
        for parts in steps:
            yield [next(batches) for _ in parts]

    def _step(self, parts: Sequence[Batch]) -> dict[str, float]:
        """Take one optimizer step; return the parts of the loss of the whole batch, over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self._steps_done())
        sums: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(parts):
            with self.fabric.no_backward_sync(self.model, enabled=number < len(parts) - 1):
                with self.autocast:
                    result = training_step(
                        self.model, self.frame, batch.to(self.fabric.device), self.loss_function
                    )
                # Processes average their gradients; shares already add up to one over all of them.
                self.fabric.backward(result.loss * self.fabric.world_size)
            for name, value in result.parts.items():
                sums[name] = sums[name] + value if name in sums else value
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        values = self._over_processes(torch.stack(list(sums.values()))).tolist()
        if not all(map(math.isfinite, values)):
            raise RunError(
                f"the loss is no longer a number in epoch {self.position.epoch + 1}: try a lower "
                f"--learning-rate (now {self.settings.learning_rate}), or --precision 32"
            )
        return dict(zip(sums, values, strict=True))

    def _over_processes(self, values: torch.Tensor) -> torch.Tensor:
        if self.fabric.world_size == 1:
            return values
        total = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        return total

    def _steps_done(self) -> int:
        return self.position.epoch * self.order.steps + self.position.step

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, from 0: a linear rise, then the schedule."""
        highest, warmup = resolved(self.settings.learning_rate), self.settings.warmup
        if step < warmup:
            return highest * (step + 1) / warmup
        if self.settings.schedule == "constant":
            return highest
        total = self.epochs * self.order.steps
        return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def _validate(self) -> list[ImageScore]:
        # Processes score different numbers of images: they cannot agree to stop in between, nor use the
        # model as Fabric wraps it, which lets them wait for each other.
        model = self.task.model.eval()
        watch = (lambda *_: self._stop_if_asked()) if self.fabric.world_size == 1 else None
        with self.autocast:
            return score_set(
                model,
                self.frame,
                self.task.validation,
                self.fabric,
                resolved(self.settings.batch_size),
                watch=watch,
            )

    def _close_epoch(self, scores: list[ImageScore]) -> None:
        """Write the row, the best adapter, the samples and the checkpoint of an epoch that is done."""
        position = self.position
        validation = {
            f"validation_{name}": value for name, value in means(self.task.model.classes, scores).items()
        }
        dice = validation["validation_dice"]
        losses = {name: value / self.order.steps for name, value in position.losses.items()}
        position.epoch += 1
        row = {
            "epoch": position.epoch,
            "loss": sum(losses.values()),
            **{f"loss_{name}": value for name, value in losses.items()},
            **validation,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(position.seconds, 3),
            "peak_bytes": peak_bytes(self.fabric.device),
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
            "epoch %d of %d: loss %.4f, validation Dice %.4f%s, %.1f s",
            position.epoch,
            self.epochs,
            row["loss"],
            dice,
            " (best)" if better else "",
            row["seconds"],
        )

    def _write_samples(self) -> None:
        if self.fabric.is_global_zero:
            path = self.task.folder.samples / f"epoch_{self.position.epoch:04d}.png"
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
        asked = self._over_processes(torch.tensor(float(self.stop.signal or 0), device=self.fabric.device))
        if not asked:
            return
        self._save_checkpoint()
        if not self.fabric.is_global_zero:
            raise SystemExit(0)  # the first process says why; Lightning would kill it if another failed
        # Ctrl-C reaches every process; what another alone was sent is a SIGTERM.
        status = 128 + (self.stop.signal or signal.SIGTERM)
        raise Interrupted(
            f"stopped in epoch {self.position.epoch + 1}; go on with "
            f"'samfit train --resume {self.task.folder.path}'",
            status,
        )

    def _progress(self) -> "_EpochProgress":
        return _EpochProgress(self.epochs, show=self.fabric.is_global_zero)


class _EpochProgress:
    """A bar over the steps of an epoch, on a terminal; elsewhere the line that each epoch logs is enough."""

    def __init__(self, epochs: int, *, show: bool):
        console = Console(stderr=True)
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal and logger.isEnabledFor(logging.INFO)),
        )
        self._task = self._progress.add_task("")

    def __enter__(self) -> "_EpochProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, position: Position, steps: int) -> None:
        """Begin an epoch."""
        description = f"epoch {position.epoch + 1} of {self._epochs}"
        self._progress.reset(self._task, total=steps, completed=position.step, description=description)

    def advance(self, position: Position) -> None:
        """Show that a step is done."""
        loss = sum(position.losses.values()) / position.step
        description = f"epoch {position.epoch + 1} of {self._epochs}, loss {loss:.4f}"
        self._progress.update(self._task, advance=1, description=description)


def peak_bytes(device: torch.device) -> int:
    """Return the largest number of bytes allocated on a GPU, or resident in this process on a CPU.

    0 on Windows, whose Python does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if find_spec("resource") is None:
        return 0
    usage = import_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.getrusage(usage.RUSAGE_SELF).ru_maxrss * unit
