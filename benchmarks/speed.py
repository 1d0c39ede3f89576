"""Measure how long training steps and predictions take beside other ways to compute the same, as JSON.

    python benchmarks/speed.py
    python benchmarks/speed.py --rows inference 'cached*' --rounds 5
    python benchmarks/speed.py --device cuda --precision bf16 --attention folded

The result goes to benchmarks/results/speed.json, that of a GPU to speed_gpu.json. CPU seconds of one thread,
because the machine may be shared; only the ratios mean anything.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from cases import STEPS, Case, batch_of, model_of, modules_of, step_of
from processes import in_a_process
from record import RESULTS, Record
from techniques import TECHNIQUES
from transformers import SamModel

from samfit.backbones.writing import write_weights
from samfit.methods.adapted import AdaptedModel
from samfit.methods.precision import autocast, store_frozen
from samfit.step import prediction_step
from samfit.testing.held import held_bytes

RESULT, GPU_RESULT = RESULTS / "speed.json", RESULTS / "speed_gpu.json"
PROTOCOL = (
    "seconds of computation (user and system) of one thread on a CPU, by the clock on a GPU; random weights "
    "and images, batch 1, float32 unless the name says otherwise. In each row two ways take turns in one "
    "process, and only their ratio means anything: the median of the rounds' ratios, and the least and the "
    "greatest of them, on a GPU after two rounds that are not counted. Of a step: forward and backward with "
    "checkpointing, beside plain modules (whole attention maps, nothing chunked, fused or computed twice). "
    "Of a cached step: with the embedding at hand, beside one that computes it. Of a technique: a step with "
    "it, beside the same step without. Of inference: encoder and decoder on one image with one box, beside "
    "transformers' SamModel with its default attention and the same weights; images_per_second are ours, "
    "peak_mb is beyond weights and image"
)
CACHED = "cached step of"
INFERENCE = "inference"
AWAY = {"32": 1e-3, "bf16": 1e-1}
"""How far apart two ways may be by precision, as a share of the greatest logit."""
Way = Callable[[], object]


def main(arguments: list[str] | None = None) -> None:
    """Measure every row that is asked for, and write each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], help="names of rows, with * for anything")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["bf16"])
    parser.add_argument("--attention", choices=["chunked", "folded", "eager"])
    parser.add_argument("--result", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result = given.result or (RESULT if given.device == "cpu" else GPU_RESULT)
    record = Record(result, {"protocol": PROTOCOL}, given.device)
    changes = {key: getattr(given, key) for key in ("precision", "attention") if getattr(given, key)}
    for name, (function, *usual) in rows().items():
        cases = [replace(case, **changes) for case in usual]
        if len(set(cases)) == len(cases) and any(fnmatch(name, pattern) for pattern in given.rows):
            full = " ".join([name, *changes.values()])
            record.keep(full, in_a_process(function, *cases, given.rounds, given.device))
            print(full, record.rows[full]["cpu_ratio"], flush=True)


def rows() -> dict[str, tuple[Any, ...]]:
    """Return what is compared by the name of its row: the function that does it, and its cases."""
    step = "speed.of_step"
    found: dict[str, tuple[Any, ...]] = {case.name: (step, case, replace(case, plain=True)) for case in STEPS}
    for method in ("cad", "decoder"):
        case = Case("sam-vit-b", method, 1024)
        found[f"{CACHED} {method}"] = step, replace(case, cached=True), case
    for technique in TECHNIQUES:
        found[technique.speed] = step, technique.lean, technique.without
    return found | {INFERENCE: ("speed.of_inference", Case("sam-vit-b", "decoder", 1024))}


def of_step(case: Case, other: Case, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Compare a step with another."""
    return _compare(_way(case, device), _way(other, device), rounds, device)


def _way(case: Case, device: str) -> Way:
    step = step_of(case, device)

    def take() -> None:
        with modules_of(case):
            step.forward().backward()
        for parameter in step.trained:
            parameter.grad = None

    return take


def of_inference(case: Case, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Compare the prediction of an image with one box with transformers' own."""
    model = model_of(case)
    theirs = transformers_sam(model, device)
    store_frozen(model, case.precision)
    model.to(device)
    batch = batch_of(case, model).to(device)
    box = batch.prompts.points.flatten(1)[:, None]

    def ours_answer() -> torch.Tensor:
        with autocast(case.precision, device):
            return prediction_step(model, batch.frame, batch.extra, batch.prompts)

    @torch.no_grad()
    def their_answer() -> torch.Tensor:
        with autocast(case.precision, device):
            return theirs(pixel_values=batch.frame, input_boxes=box, multimask_output=False).pred_masks[:, 0]

    answers = ours_answer().float(), their_answer().float()
    away = float((answers[0] - answers[1]).abs().max() / answers[1].abs().max())
    if away > AWAY[case.precision]:
        raise SystemExit(f"the two ways do not compute the same: they are {away:.1e} apart")
    found = _compare(ours_answer, their_answer, rounds, device)
    return found | {
        "images_per_second": round(1 / found["seconds"], 4),
        "peak_mb": round(held_bytes(ours_answer, device=device)[0].peak / 1e6, 1),
        "their_peak_mb": round(held_bytes(their_answer, device=device)[0].peak / 1e6, 1),
    }


def transformers_sam(model: AdaptedModel, device: str) -> SamModel:
    """Return transformers' SAM with the weights of a plain one, with its default attention."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(model.backbone, Path(folder), "transformers")
        return SamModel.from_pretrained(folder).eval().to(device)


def _compare(ours: Way, other: Way, rounds: int, device: str) -> dict[str, Any]:
    """Let two ways take turns, and return the seconds of each and what is to be said of their ratio."""
    torch.set_num_threads(1)
    not_counted = 0 if device == "cpu" else 2
    taken = [(_seconds(ours, device), _seconds(other, device)) for _ in range(not_counted + rounds)]
    seconds = taken[not_counted:]
    ratios = [own / others for own, others in seconds]
    return {
        "rounds": rounds,
        "seconds": round(statistics.median(own for own, _ in seconds), 4),
        "other_seconds": round(statistics.median(others for _, others in seconds), 4),
        "cpu_ratio": round(statistics.median(ratios), 4),
        "cpu_ratio_from_to": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def _seconds(way: Way, device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        way()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    began = time.process_time()
    way()
    return time.process_time() - began


if __name__ == "__main__":
    main()
