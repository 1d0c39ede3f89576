"""Train sam-tiny on drawn scenes, and write the weights that ship with samfit.

    python training/pretrain_sam_tiny.py --output DIR

Ctrl-C and SIGTERM end the run after a checkpoint; the same command goes on from there, with the same result
as if it had never ended. DIR holds checkpoint.pt, log.csv and, of the averaged weights as of the last
checkpoint, sam-tiny.safetensors with run.json, which says what they cost.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import numpy as np
import torch
from machine import machine
from objective import Question, ask, objective
from scoring import HELD_OUT, means, scene_scores
from torch import Tensor

from samfit.backbones import load_backbone
from samfit.backbones.base import Backbone
from samfit.backbones.writing import write_weights
from samfit.engine.stopping import StopRequest
from samfit.errors import SettingError
from samfit.files import atomic_path, sha256_of_file, write_json, write_text
from samfit.runs import versions

CHECKPOINT, LOG, PROCESS = "checkpoint.pt", "log.csv", "pid"
WEIGHTS, COST = "sam-tiny.safetensors", "run.json"
EVERY = 100
"""Steps between two lines of the log."""
SAVE_EVERY = 500
"""Steps between two checkpoints."""
SCORE_EVERY = 2000
"""Steps between two scorings on held-out scenes."""


@dataclass(frozen=True)
class Plan:
    """What a run is; a checkpoint goes on with its own plan only, but may do so for more steps or fewer.

    The defaults, apart from seed and start, are those of the last run of the weights that ship.
    """

    steps: int = 6_600
    seed: int = 0
    start: str | None = None
    """SHA-256 of the weights that it starts from, if they are not random."""
    images: int = 16
    """Scenes a step."""
    at_once: int = 8
    """Scenes of a step whose gradient is computed together; with more threads than one, side by side."""
    prompts: int = 4
    """Prompts a scene."""
    rate: float = 2e-3
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
    corrected: tuple[int, float] = (1000, 0.2)
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
        return int(rng.integers(2, 4))


class Pretraining:
    """A model, its optimizers, the average of its weights, and how far it has come."""

    def __init__(self, plan: Plan, threads: int = 1, start: Path | None = None):
        """`threads`: pieces of a step that are computed side by side; results do not depend on it.

        `start`: the folder of the run whose weights it starts from, or None for random ones.
        """
        self.plan, self.threads = plan, threads
        self.before = start and json.loads((start / COST).read_text(encoding="utf-8"))
        """What the weights cost that it starts from."""
        self.workers = ThreadPoolExecutor(threads)
        self.step = 0
        self.seconds = 0.0
        """Processor time of all threads that the steps so far took: the machine may be shared."""
        self.rows: list[dict[str, float]] = []
        """The lines of the log."""
        self.backbone = load_backbone(
            "sam-tiny", weights=start / WEIGHTS if start else "random", seed=plan.seed
        )
        self.backbone.train().attend("eager")  # the quickest at this size
        self.trained = _trained(self.backbone)
        matrices = [
            module.weight for module in self.backbone.modules() if isinstance(module, torch.nn.Linear)
        ]
        known = set(map(id, matrices))
        others = [parameter for parameter in self.trained.values() if id(parameter) not in known]
        self.optimizers = (
            torch.optim.Muon(matrices, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, weight_decay=0.0),
        )
        self.average = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def learn(self, question: Question) -> dict[str, float]:
        """Take one step on a question and return the parts of its loss."""
        plan, step = self.plan, self.step
        rng = np.random.default_rng([plan.seed, step])
        for optimizer, share in zip(self.optimizers, (1.0, plan.other_rate), strict=True):
            optimizer.param_groups[0]["lr"] = share * plan.rate_at(step)
        rounds = plan.rounds_at(step, rng)
        pieces = list(question.pieces(plan.at_once))
        answers = self.workers.map(self._gradients, pieces, [rounds] * len(pieces), rng.spawn(len(pieces)))
        parts, gradients = zip(*answers, strict=True)
        weights = [len(piece.frame) / len(question.frame) for piece in pieces]
        for parameter, *of_pieces in zip(self.trained.values(), *gradients, strict=True):
            weighted = [weight * gradient for weight, gradient in zip(weights, of_pieces, strict=True)]
            parameter.grad = torch.stack(weighted).sum(0)
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        kept = min(plan.averaging, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter, 1 - kept)
        self.step += 1
        return {name: float(np.dot(weights, [part[name] for part in parts])) for name in parts[0]}

    def _gradients(
        self, question: Question, rounds: int, rng: np.random.Generator
    ) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        """Return the parts of the loss of a piece of a step, and its gradients in the order of `trained`."""
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # threads would share the cache
            parts = objective(
                self.backbone, question, focal=self.plan.focal_at(self.step), rounds=rounds, rng=rng
            )
        loss = torch.stack(list(parts.values())).sum()
        gradients = torch.autograd.grad(loss, list(self.trained.values()), materialize_grads=True)
        return {name: part.item() for name, part in parts.items()}, gradients

    def questions(self) -> Iterator[Question]:
        """Yield the questions of the steps that are left; the next one is drawn while one is learnt."""
        plan = self.plan

        def drawn(step: int) -> Question:
            return ask(self.backbone, plan.seed, step, images=plan.images, prompts=plan.prompts)

        with ThreadPoolExecutor(1) as drawing:
            following = drawing.submit(drawn, self.step)
            for step in range(self.step, plan.steps):
                question = following.result()
                following = drawing.submit(drawn, step + 1)
                yield question

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
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if not self.plan.goes_on(Plan(**state["plan"]), state["step"]):
            raise SettingError(
                f"{path} is of a run with another plan: {state['plan']}; take another --output"
            )
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.backbone.load_state_dict(state["weights"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.average = state["average"]


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
        "cpu_hours": run.seconds / 3600,
        "machine": machine(run.threads),
        "versions": versions(),
        "before": run.before,
    }
    write_json(output / COST, cost)


def main(arguments: list[str] | None = None) -> int:
    """Train, or go on training, and export; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--start", type=Path, metavar="DIR", help="a run whose weights to start from")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--images", type=int, default=Plan.images, help="scenes a step")
    parser.add_argument("--prompts", type=int, default=Plan.prompts, help="prompts a scene")
    parser.add_argument(
        "--threads", type=int, default=2, help="pieces of a step that are computed side by side"
    )
    given = parser.parse_args(arguments)
    if given.seed == HELD_OUT:
        parser.error(f"--seed {HELD_OUT} draws the scenes that the model is scored on; take another")
    torch.set_num_threads(1)
    start = given.start and sha256_of_file(given.start / WEIGHTS)
    plan = Plan(given.steps, given.seed, start, given.images, prompts=given.prompts)
    run = Pretraining(plan, given.threads, given.start)
    if (given.output / CHECKPOINT).exists():
        run.load(given.output / CHECKPOINT)
    write_text(given.output / PROCESS, f"{os.getpid()}\n")
    with StopRequest() as stop:
        train(run, given.output, stop)
    if run.step < run.plan.steps:
        print(f"stopped after {run.step} of {run.plan.steps} steps; the same command goes on from there")
        return 128 + (stop.signal or 0)
    keep(run, given.output)
    print(f"written: {given.output / WEIGHTS}")
    return 0


def train(run: Pretraining, output: Path, stop: StopRequest) -> None:
    """Take the steps that are left, or those until a stop is asked for; write log and checkpoint."""
    parts: list[dict[str, float]] = []
    said, worked = monotonic(), process_time()
    for question in run.questions():
        parts.append(run.learn(question))
        run.seconds += process_time() - worked
        worked = process_time()
        if run.step % EVERY == 0:
            run.rows.append(_row(run, parts, monotonic() - said))
            parts, said = [], monotonic()
            write_text(output / LOG, _table(run.rows))
            print(_line(run), flush=True)
        if run.step % SAVE_EVERY == 0 or stop.signal is not None:
            keep(run, output)
        if stop.signal is not None:
            return


def _row(run: Pretraining, parts: list[dict[str, float]], seconds: float) -> dict[str, float]:
    row = {"step": run.step, "cpu_seconds": run.seconds, "seconds_a_step": seconds / len(parts)}
    row |= {"rate": run.plan.rate_at(run.step - 1)}
    row |= {name: float(np.mean([one[name] for one in parts])) for name in parts[0]}
    if run.step % SCORE_EVERY == 0:
        row |= means(scene_scores(run.averaged(), 64).values())
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
    left = (run.plan.steps - run.step) * row["seconds_a_step"] / 3600
    shown = ", ".join(
        f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "cpu_seconds")
    )
    return f"{run.step}/{run.plan.steps}: {shown}; about {left:.1f} h left"


if __name__ == "__main__":
    sys.exit(main())
