"""Time a training step of every method, in turn in one process, and write the medians as JSON.

    python benchmarks/step_times.py

The result goes to benchmarks/results/step_times.json. CPU seconds of one thread, because the machine may be
shared; only their ratios mean anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from samfit.files import write_json
from samfit.methods import METHODS
from samfit.runs import versions
from samfit.testing import Case, small_backbone
from samfit.testing.case import gradients, loss_of

RESULT = Path(__file__).parent / "results" / "step_times.json"
PROTOCOL = (
    "sam-tiny at 128 px, batch 2, forward and backward, one thread; the methods in turn, median of all rounds"
)


def main(arguments: list[str] | None = None) -> None:
    """Time every method and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    steps = {name: _step(name) for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(given.rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            seconds[name].append(time.process_time() - began)
    # The first round warms up.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    write_json(
        given.result,
        {"protocol": PROTOCOL, "rounds": given.rounds, "versions": versions(), "cpu_seconds": medians},
    )


def _step(name: str) -> Callable[[], object]:
    """Return a forward and backward pass of one method, ready to be timed."""
    case = Case(METHODS[name], partial(small_backbone, "sam-tiny", image_size=128), names=(), options={})
    model, batch = case.attached().train(), case.batch
    return lambda: gradients(model, loss_of(model, batch))


if __name__ == "__main__":
    main()
