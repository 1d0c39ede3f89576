"""Train sam-tiny on drawn scenes, and write the weights that ship with samfit.

    python training/pretrain_sam_tiny.py --output DIR --device cuda --workers 15 --seed 4

made the weights that ship. On two cores without a GPU, `--images 16 --at-once 4 --views 1 --rate 2e-3` takes
half a second a step.

Ctrl-C and SIGTERM end the run after a checkpoint; the same command goes on from there, with the same result
as if it had never ended. DIR holds checkpoint.pt, log.csv and, of the averaged weights as of the last
checkpoint, sam-tiny.safetensors with run.json, which says what they cost.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import cv2
import numpy as np
import torch
from graphs import Recorded
from machine import machine
from objective import MOST_ROUNDS, Question, ask, objective
from optimizers import Muon
from scoring import HELD_OUT, means, scene_scores
from torch import Tensor
from torch.utils.data import Dataset

from samfit.backbones import load_backbone
from samfit.backbones.base import Backbone
from samfit.backbones.writing import write_weights
from samfit.engine.reading import reading
from samfit.engine.stopping import StopRequest
from samfit.errors import SettingError
from samfit.files import atomic_path, write_json, write_text
from samfit.runs import versions

CHECKPOINT, LOG, PROCESS = "checkpoint.pt", "log.csv", "pid"
WEIGHTS, COST = "sam-tiny.safetensors", "run.json"
EVERY = 100
"""Steps between two lines of the log."""


@dataclass(frozen=True)
class Plan:
    """What a run is; a checkpoint goes on with its own plan only, but may do so for more steps or fewer.

    The defaults, apart from the seed, are those of the run that made the weights that ship.
    """

    steps: int = 15_000
    seed: int = 0
    images: int = 128
    """Scenes a step."""
    at_once: int = 128
    """Scenes of a step whose gradient is computed together; with more threads than one, side by side."""
    views: int = 6
    """How many steps show each scene, turned and mirrored: a GPU learns faster than scenes are drawn."""
    prompts: int = 8
    """Prompts a scene, which cost less than as many scenes."""
    rate: float = 3e-3
    """Largest learning rate of the matrices of linear layers, which Muon trains: it left the answer "nothing
    anywhere" a good deal sooner than AdamW, here as elsewhere (arXiv 2502.16982)."""
    other_rate: float = 1 / 3
    """Share of that for everything else, which AdamW trains."""
    warmup: int = 200
    """Steps until it is reached."""
    fall: float = 0.9
    """Share of the run, its last one, in which it falls to zero along a line: before that a checkpoint knows
    nothing of how long the run will be, and may go on with more steps."""
    decay: float = 0.05
    """Weight decay, of the matrices alone."""
    focal: tuple[int, int] = (500, 1000)
    """Steps between which the focal loss takes the place of cross-entropy."""
    corrected: tuple[int, float] = (1000, 0.1)
    """Step from which on answers are corrected by clicks, and the share of such steps."""
    averaging: float = 0.999
    """How much of the average of weights is kept at each step."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, 0…`rate`."""
        left = (self.steps - step) / (self.fall * self.steps)
        return self.rate * min((step + 1) / self.warmup, left, 1.0)

    def goes_on(self, other: "Plan", step: int) -> bool:
        """Tell whether a run of this plan would have come to `step` as one of `other` did."""
        falling = any(step > (1 - plan.fall) * plan.steps for plan in (self, other))
        return self == other or (not falling and replace(other, steps=self.steps) == self)

    def focal_at(self, step: int) -> float:
        """Return the share of the focal loss at a step, 0…1."""
        first, last = self.focal
        return min(1.0, max(0.0, (step - first) / (last - first)))

    def rounds_at(self, step: int, rng: np.random.Generator) -> int:
        """Return how often the decoder is asked at a step: once, twice or three times."""
        first, share = self.corrected
        if step < first or rng.random() >= share:
            return 1
        return int(rng.integers(2, MOST_ROUNDS + 1))


class Pretraining:
    """A model, its optimizers, the average of its weights, and how far it has come."""

    def __init__(self, plan: Plan, threads: int = 1, device: str = "cpu"):
        """`threads`: pieces of a step that a CPU computes side by side; results do not depend on it."""
        self.plan, self.threads, self.device = plan, threads, torch.device(device)
        self.workers = ThreadPoolExecutor(threads)
        self.step = 0
        self.seconds = 0.0
        """What the steps so far took: processor time of all threads on a CPU, since the machine may be
        shared, without that of the workers that draw; plain time on a GPU."""
        self.rows: list[dict[str, float]] = []
        """The lines of the log."""
        self.backbone = load_backbone("sam-tiny", weights="random", seed=plan.seed)
        on_gpu = self.device.type == "cuda"
        # The quickest at this size; torch's own attention is slow backwards on a CPU.
        self.backbone.to(self.device).train().attend("eager")
        decoder: Any = self.backbone.mask_decoder
        decoder.config._attn_implementation = "sdpa" if on_gpu else "eager"
        self.trained = _trained(self.backbone)
        matrices = [
            module.weight for module in self.backbone.modules() if isinstance(module, torch.nn.Linear)
        ]
        known = set(map(id, matrices))
        others = [parameter for parameter in self.trained.values() if id(parameter) not in known]
        self.optimizers = (
            Muon(matrices, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, weight_decay=0.0, capturable=on_gpu),
        )
        self.rate, self.focal, self.fresh = torch.zeros(3, device=self.device)
        """Learning rate, share of the focal loss, and share of the new weights in the average, of a step."""
        steps = {rounds: partial(self._step, rounds=rounds) for rounds in range(1, MOST_ROUNDS + 1)}
        self._steps = {rounds: Recorded(step) if on_gpu else step for rounds, step in steps.items()}
        self.average = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def learn(self, question: Question) -> dict[str, Tensor]:
        """Take one step on a question and return the parts of its loss, scalars."""
        plan, step = self.plan, self.step
        self.rate.fill_(plan.rate_at(step))
        self.focal.fill_(plan.focal_at(step))
        self.fresh.fill_(1 - min(plan.averaging, (step + 1) / (step + 10)))
        rounds = plan.rounds_at(step, np.random.default_rng([plan.seed, step]))
        parts = self._steps[rounds](question.to(self.device))
        self.step += 1
        return parts

    def _step(self, question: Question, rounds: int) -> dict[str, Tensor]:
        pieces = list(question.pieces(self.plan.at_once))
        shares = [len(piece.images) / len(question.images) for piece in pieces]
        # What is recorded on a GPU is what this thread starts.
        side_by_side = self.workers.map if self.threads > 1 and self.device.type == "cpu" else map
        answers = side_by_side(partial(self._gradients, rounds=rounds), pieces, shares)
        parts, gradients = zip(*answers, strict=True)
        for parameter, *of_pieces in zip(self.trained.values(), *gradients, strict=True):
            parameter.grad = reduce(torch.add, of_pieces)
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        for optimizer, share in zip(self.optimizers, (1.0, self.plan.other_rate), strict=True):
            optimizer.param_groups[0]["lr"] = share * self.rate
            optimizer.step()
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter, self.fresh)
        return {name: reduce(torch.add, [part[name] for part in parts]) for name in parts[0]}

    def _gradients(
        self, question: Question, share: float, rounds: int
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the parts of the loss of a piece of a step, and its gradients in the order of `trained`.

        Both are what the piece, a `share` of the step, adds to those of the whole.
        """
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):  # threads would share it
            parts = objective(self.backbone, question, focal=self.focal, rounds=rounds)
        parts = {name: share * part for name, part in parts.items()}
        loss = torch.stack(list(parts.values())).sum()
        gradients = torch.autograd.grad(loss, list(self.trained.values()), materialize_grads=True)
        return {name: part.detach() for name, part in parts.items()}, gradients

    def questions(self, workers: int = 0) -> Iterator[Question]:
        """Yield the questions of the steps that are left.

        `workers`: processes that draw them beside the training; results do not depend on it.
        """
        yield from reading(
            _Questions(self.plan),
            workers,
            batch_size=None,
            sampler=range(self.step, self.plan.steps),
            prefetch_factor=4 if workers else None,  # new scenes take longer than scenes shown again
            pin_memory=self.device.type == "cuda",
        )

    def averaged(self) -> Backbone:
        """Return a backbone of its own with the averaged weights."""
        backbone = load_backbone("sam-tiny", weights="random", seed=self.plan.seed)
        backbone.load_state_dict(self.backbone.state_dict() | self.average)
        return backbone

    def save(self, path: Path) -> None:
        """Write all that the run needs to go on."""
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "weights": self.backbone.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Go on where the run that wrote `path` stood. Raises `SettingError` if its plan was another."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if not self.plan.goes_on(Plan(**state["plan"]), state["step"]):
            raise SettingError(
                f"{path} is of a run with another plan: {state['plan']}; take another --output"
            )
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.backbone.load_state_dict(state["weights"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.average = state["average"]


@dataclass(frozen=True)
class _Questions(Dataset[Question]):
    """The question of each step of a plan, by its number."""

    plan: Plan

    def __getitem__(self, step: int) -> Question:
        plan = self.plan
        return ask(plan.seed, step, images=plan.images, prompts=plan.prompts, views=plan.views)


def _trained(backbone: Backbone) -> dict[str, Tensor]:
    """Return what is trained by its name: everything but the random matrix of the positional encoding."""
    return {
        name: parameter.requires_grad_()
        for name, parameter in backbone.named_parameters()
        if not name.endswith("shared_embedding.positional_embedding")
    }


def export(backbone: Backbone, path: Path) -> None:
    """Write the weights in float16, with the published names."""
    write_weights(backbone.half(), path, "safetensors")


def keep(run: Pretraining, output: Path) -> None:
    """Write the checkpoint, and the weights so far with what they cost."""
    run.save(output / CHECKPOINT)
    export(run.averaged(), output / WEIGHTS)
    cost = {
        "plan": asdict(run.plan),
        "steps": run.step,
        "scenes": run.step * run.plan.images,
        "prompts": run.step * run.plan.images * run.plan.prompts,
        f"{run.device.type}_hours": run.seconds / 3600,
        "machine": machine(run.threads, run.device.type),
        "versions": versions(),
    }
    write_json(output / COST, cost)


def main(arguments: list[str] | None = None) -> int:
    """Train, or go on training, and export; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="largest learning rate of matrices")
    parser.add_argument("--images", type=int, default=Plan.images, help="scenes a step")
    parser.add_argument("--at-once", type=int, default=Plan.at_once, help="scenes that are one piece")
    parser.add_argument("--views", type=int, default=Plan.views, help="steps that show each scene")
    parser.add_argument("--prompts", type=int, default=Plan.prompts, help="prompts an image")
    parser.add_argument(
        "--threads", type=int, default=2, help="pieces of a step that a CPU computes side by side"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes beside")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--save-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument(
        "--score-every", type=int, default=2000, help="steps between two scorings on held-out scenes, or 0"
    )
    given = parser.parse_args(arguments)
    if given.seed == HELD_OUT:
        parser.error(f"--seed {HELD_OUT} draws the scenes that the model is scored on; take another")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # also in the processes that draw: there it is too late to change it
    names = ("steps", "seed", "rate", "images", "at_once", "views", "prompts")
    plan = Plan(**{name: getattr(given, name) for name in names})
    run = Pretraining(plan, given.threads, given.device)
    if (given.output / CHECKPOINT).exists():
        run.load(given.output / CHECKPOINT)
    write_text(given.output / PROCESS, f"{os.getpid()}\n")
    with StopRequest() as stop:
        every = {"save_every": given.save_every, "score_every": given.score_every}
        train(run, given.output, stop, given.workers, **every)
    if run.step < run.plan.steps:
        print(f"stopped after {run.step} of {run.plan.steps} steps; the same command goes on from there")
        return 128 + (stop.signal or 0)
    keep(run, given.output)
    print(f"written: {given.output / WEIGHTS}")
    return 0


def train(
    run: Pretraining,
    output: Path,
    stop: StopRequest,
    workers: int = 0,
    *,
    save_every: int = 500,
    score_every: int = 0,
) -> None:
    """Take the steps that are left, or those until a stop is asked for; write log and checkpoint.

    `workers`: as of `Pretraining.questions`. `score_every`: steps between two scorings, or 0 for none.
    """
    parts: list[dict[str, Tensor]] = []
    clock = process_time if run.device.type == "cpu" else monotonic
    said, worked = monotonic(), clock()
    for question in run.questions(workers):
        parts.append(run.learn(question))
        run.seconds += clock() - worked
        worked = clock()
        if run.step % EVERY == 0:
            run.rows.append(_row(run, parts, monotonic() - said))
            if score_every and run.step % score_every == 0:
                run.rows[-1] |= means(scene_scores(run.averaged(), 64).values())
            parts, said = [], monotonic()
            write_text(output / LOG, _table(run.rows))
            print(_line(run), flush=True)
        if run.step % save_every == 0 or stop.signal is not None:
            keep(run, output)
        if stop.signal is not None:
            return


def _row(run: Pretraining, parts: list[dict[str, Tensor]], seconds: float) -> dict[str, float]:
    row = {"step": run.step, "seconds": run.seconds, "seconds_a_step": seconds / len(parts)}
    row |= {"rate": run.plan.rate_at(run.step - 1)}
    row |= {name: torch.stack([one[name] for one in parts]).mean().item() for name in parts[0]}
    return row


def _table(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _line(run: Pretraining) -> str:
    row = run.rows[-1]
    left = (run.plan.steps - run.step) * row["seconds_a_step"] / 60
    shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "seconds"))
    return f"{run.step}/{run.plan.steps}: {shown}; about {left:.0f} min left"


if __name__ == "__main__":
    sys.exit(main())
