"""How many bytes of a device a piece of code holds, as torch's allocator counts them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function


@dataclass(frozen=True)
class Held:
    """Bytes beyond those that were held before the first of several calls."""

    after: int
    """When this one returned; negative if it let go of something."""
    peak: int
    """At the most while it ran."""


def held_bytes(*functions: Callable[[], object], device: str | torch.device = "cpu") -> list[Held]:
    """Call functions one after the other; return what each held of a CPU's or a CUDA device's memory."""
    if torch.device(device).type == "cuda":
        return _on_cuda(functions, device)
    # All in one profile: it does not see that memory is given back which was taken before it began.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for number, function in enumerate(functions):
            with record_function(_name(number)):
                function()
    found: Any = profiler.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess] -- it has run
    events = sorted(found.events(), key=lambda event: event.start_ns())
    ends = {event.name(): event.start_ns() + event.duration_ns() for event in events}
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    assert changes, "the profiler saw nothing"
    held, now = [], 0
    for number in range(len(functions)):
        peak = now
        while changes and changes[0][0] <= ends[_name(number)]:
            now += changes.pop(0)[1]
            peak = max(peak, now)
        held.append(Held(now, peak))
    return held


def _name(number: int) -> str:
    return f"samfit held_bytes {number}"


def _on_cuda(functions: tuple[Callable[[], object], ...], device: str | torch.device) -> list[Held]:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    held = []
    for function in functions:
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        after, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        held.append(Held(after - before, peak - before))
    return held


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that a CPU's allocator held during a call, beyond those before it."""
    return held_bytes(function)[0].peak
