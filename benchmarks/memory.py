"""Measure the memory of training steps and of whole commands, and write it as JSON.

    python benchmarks/memory.py
    python benchmarks/memory.py --rows 'sam-vit-b cad*' --attention eager --device cuda

The result goes to benchmarks/results/memory.json, that of a GPU to memory_gpu.json. Each row is measured in a
process of its own and written at once; rows that are there already, from the same machine, stay.
`--attention`, `--plain` and `--no-checkpointing` change how steps are computed, and so their names.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from cases import STEPS, Case, case_of, modules_of, step_of, words_of
from processes import in_a_process, output_of
from record import RESULTS, Record
from resident import resident_mb
from techniques import TECHNIQUES
from torch import Tensor

from samfit.data.drawn import draw_lesions
from samfit.testing.held import held_bytes
from samfit.testing.kept import kept_bytes

RESULT, GPU_RESULT = RESULTS / "memory.json", RESULTS / "memory_gpu.json"
DEFINITIONS = {
    "mb": "1 MB = 1,000,000 bytes",
    "saved": "what autograd keeps after the forward pass: torch.autograd.graph.saved_tensors_hooks, every "
    "storage once, parameters and buffers not counted",
    "live_after_forward": "allocated after the forward pass minus allocated before the step",
    "peak": "the most that is allocated in forward and backward, gradients included, minus what is allocated "
    "before (weights and inputs)",
    "adamw_state": "what AdamW adds from the second step on: 8 bytes for each trained parameter",
    "weights": "parameters and buffers of the model that are on the device",
    "resident": "the most that a whole process holds at once (VmHWM), Python and libraries included; of a "
    "step: one that builds the model and takes one step with AdamW",
}
PROTOCOL = (
    "random weights and images, the method's own prompt and loss; checkpointing on and attention 'auto' "
    "unless the name says otherwise; allocated bytes are those of torch's allocator (torch.profiler's events "
    "on a CPU, max_memory_allocated on a GPU); each row in a process of its own"
)


@dataclass(frozen=True)
class Command:
    """A samfit command as a whole process. `{data}` are drawn images, `{folder}` is the place for results."""

    name: str
    arguments: str
    training: int = 10
    test: int = 1
    before: str = ""
    """A command that must have been run before it."""


_RUN = "train --dataset isic2016 --data {data} --output {folder}/run --weights random --accelerator cpu"
_TINY = f"{_RUN} --backbone sam-tiny --method decoder --max-steps 2"
_VIT_B = f"{_RUN} --backbone sam-vit-b --image-size 1024 --batch-size 1 --max-steps 2 --precision 32"
_PREDICT = (
    "predict {folder}/run {data}/ISBI2016_ISIC_Part1_Test_Data --output {folder}/masks --accelerator cpu"
)
COMMANDS = (
    *(Command(f"samfit train sam-vit-b {m}", f"{_VIT_B} --method {m}") for m in ("cad", "medical-adapter")),
    *(Command(f"samfit train sam-tiny, {n} images", _TINY, training=n) for n in (10, 1000)),
    *(Command(f"samfit predict sam-tiny, {n} images", _PREDICT, test=n, before=_TINY) for n in (1, 10, 1000)),
)


def steps() -> Iterable[Case]:
    """Return the steps that are measured if nothing else is asked for."""
    cases = [one for case in STEPS for one in (case, replace(case, precision="bf16"))]
    for method in ("cad", "decoder"):
        one = Case("sam-vit-b", method, 1024)
        cases += [replace(one, batch=4), replace(one, classes=8), replace(one, cached=True)]
    cases += [Case("sam-vit-h", "cad", 1024)]
    cases += [case for technique in TECHNIQUES for case in (technique.lean, technique.without)]
    return dict.fromkeys(cases)


def measured(path: Path) -> dict[Case, dict[str, Any]]:
    """Return the rows of a result file by the steps that they are of; none if there is no file."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return {case_of(row): row for row in rows if "backbone" in row}


def main(arguments: list[str] | None = None) -> None:
    """Measure every row that is asked for, and write each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], help="names of rows, with * for anything")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--attention", choices=["chunked", "folded", "eager"])
    parser.add_argument("--plain", action="store_const", const=True, help="by plain modules, for comparison")
    parser.add_argument("--no-checkpointing", dest="checkpointing", action="store_const", const=False)
    parser.add_argument("--resident", action="store_true", help="what a process of one step holds, too")
    parser.add_argument("--result", type=Path)
    given = parser.parse_args(arguments)
    result = given.result or (RESULT if given.device == "cpu" else GPU_RESULT)
    record = Record(result, {"protocol": PROTOCOL, "definitions": DEFINITIONS}, given.device)
    changes = {key: getattr(given, key) for key in ("attention", "plain", "checkpointing")}
    changes = {key: value for key, value in changes.items() if value is not None}
    asked = [case for case in steps() if _asked(case.name, given.rows)]
    for case in dict.fromkeys(replace(case, **changes) for case in asked):
        record.keep(case.name, words_of(case) | _figures(case, given.device, given.resident))
        _say(case.name, record)
    if given.device == "cpu":
        for command in COMMANDS:
            if _asked(command.name, given.rows):
                record.keep(command.name, {"resident_mb": resident_of_command(command)})
                _say(command.name, record)


def _asked(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _say(name: str, record: Record) -> None:
    numbers = {key: value for key, value in record.rows[name].items() if key.endswith("_mb")}
    print(name, *(f"{key[:-3]} {value}" for key, value in numbers.items()), sep=", ", flush=True)


def _figures(case: Case, device: str, resident: bool) -> dict[str, Any]:
    """Return the figures of a step, each part from a process of its own."""
    found = in_a_process("memory.memory_of", case, device)
    if resident and device == "cpu":
        found |= in_a_process("memory.resident_of", case, device)
    return found


def memory_of(case: Case, device: str = "cpu") -> dict[str, float]:
    """Return what a step saves and holds, in MB."""
    step = step_of(case, device)
    saved, losses = [0], list[Tensor]()

    def forward() -> None:
        with kept_bytes(step.module) as counted:
            losses.append(step.forward())
            saved[0] = counted()

    with modules_of(case):
        first, second = held_bytes(forward, lambda: losses.pop().backward(), device=device)
    own = [*step.module.parameters(), *step.module.buffers()]
    return {
        "saved_mb": _mb(saved[0]),
        "live_after_forward_mb": _mb(first.after),
        "peak_mb": _mb(max(first.peak, second.peak)),
        "adamw_state_mb": _mb(8 * sum(parameter.numel() for parameter in step.trained)),
        "weights_mb": _mb(sum(tensor.nbytes for tensor in own if tensor.device.type != "meta")),
    }


def resident_of(case: Case, device: str = "cpu") -> dict[str, float]:
    """Take a step with AdamW and return what this process held at most, in MB."""
    step = step_of(case, device)
    optimizer = torch.optim.AdamW(step.trained)
    with modules_of(case):
        step.forward().backward()
    optimizer.step()
    return {"resident_mb": resident_mb()}


def resident_of_command(command: Command) -> float:
    """Return what a command holds at most, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_lesions(data, training=command.training, test=command.test)
        output = ""
        for words in filter(None, (command.before, command.arguments)):
            arguments = words.format(data=data, folder=folder).split()
            output = output_of(["resident.py", *arguments], SAMFIT_CACHE=folder)
    return float(output)


def _mb(count: float) -> float:
    return round(count / 1e6, 1)


if __name__ == "__main__":
    main()
