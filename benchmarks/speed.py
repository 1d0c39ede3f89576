"""Measure how long training steps and predictions take beside other ways to compute the same, as JSON.

    python benchmarks/speed.py
    python benchmarks/speed.py --rows inference 'cached*' --rounds 5

The result goes to benchmarks/results/speed.json. CPU seconds of one thread, because the machine may be
shared; only the ratios mean anything.
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
from transformers import SamModel

from samfit.backbones.writing import write_weights
from samfit.methods.adapted import AdaptedModel
from samfit.step import prediction_step
from samfit.testing.held import held_bytes

RESULT = RESULTS / "speed.json"
PROTOCOL = (
    "seconds of computation (user and system) of one thread on a CPU, by the clock on a GPU; random weights "
    "and images, batch 1, float32. In each row two ways take turns in one process, and only their ratio "
    "means anything: the median of the rounds' ratios, and the least and the greatest of them. Of a step: "
    "forward and backward with checkpointing, beside plain modules (whole attention maps, nothing chunked, "
    "fused or computed twice). Of a cached step: with the embedding at hand, beside one that computes it. "
    "Of inference: encoder and decoder on one image with one box, beside transformers' SamModel with its "
    "default attention and the same weights; images_per_second are ours, peak_mb is beyond weights and image"
)
CACHED = "cached step of"
INFERENCE = "inference"
Way = Callable[[], object]


def main(arguments: list[str] | None = None) -> None:
    """Measure every row that is asked for, and write each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], help="names of rows, with * for anything")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    record = Record(given.result, {"protocol": PROTOCOL}, given.device)
    cached = {f"{CACHED} {method}": Case("sam-vit-b", method, 1024) for method in ("cad", "decoder")}
    rows = {case.name: ("speed.of_step", case) for case in STEPS}
    rows |= {name: ("speed.of_cached_step", case) for name, case in cached.items()}
    rows |= {INFERENCE: ("speed.of_inference", Case("sam-vit-b", "decoder", 1024))}
    for name, (function, case) in rows.items():
        if any(fnmatch(name, pattern) for pattern in given.rows):
            record.keep(name, in_a_process(function, case, given.rounds, given.device))
            print(name, record.rows[name]["cpu_ratio"], flush=True)


def of_step(case: Case, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Compare a step with one of plain modules."""
    return _compare(_way(case, device), _way(replace(case, plain=True), device), rounds, device)


def _way(case: Case, device: str, *, cached: bool = False) -> Way:
    step = step_of(case, device, cached=cached)

    def take() -> None:
        with modules_of(case):
            step.forward().backward()
        for parameter in step.trained:
            parameter.grad = None

    return take


def of_inference(case: Case, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Compare the prediction of an image with one box with transformers' own."""
    model = model_of(case).to(device)
    batch = batch_of(case, model).to(device)
    theirs = transformers_sam(model, device)
    box = batch.prompts.points.flatten(1)[:, None]

    def ours_answer() -> torch.Tensor:
        return prediction_step(model, batch.frame, batch.extra, batch.prompts)

    @torch.no_grad()
    def their_answer() -> torch.Tensor:
        return theirs(pixel_values=batch.frame, input_boxes=box, multimask_output=False).pred_masks[:, 0]

    answers = ours_answer(), their_answer()
    away = float((answers[0] - answers[1]).abs().max() / answers[1].abs().max())
    if away > 1e-3:
        raise SystemExit(f"the two ways do not compute the same: they are {away:.1e} apart")
    found = _compare(ours_answer, their_answer, rounds, device)
    return found | {
        "images_per_second": round(1 / found["seconds"], 4),
        "peak_mb": round(held_bytes(ours_answer, device=device)[0].peak / 1e6, 1),
        "their_peak_mb": round(held_bytes(their_answer, device=device)[0].peak / 1e6, 1),
    }


def of_cached_step(case: Case, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Compare a step that is given the embedding with one that computes it."""
    return _compare(_way(case, device, cached=True), _way(case, device), rounds, device)


def transformers_sam(model: AdaptedModel, device: str) -> SamModel:
    """Return transformers' SAM with the weights of a plain one, with its default attention."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(model.backbone, Path(folder), "transformers")
        return SamModel.from_pretrained(folder).eval().to(device)


def _compare(ours: Way, other: Way, rounds: int, device: str) -> dict[str, Any]:
    """Let two ways take turns, and return the seconds of each and what is to be said of their ratio."""
    torch.set_num_threads(1)
    seconds = [(_seconds(ours, device), _seconds(other, device)) for _ in range(rounds)]
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
