"""The devices that a command works on, through Lightning's Fabric."""

import sys
from importlib import import_module
from importlib.util import find_spec

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from samfit.cache.size import free_memory
from samfit.errors import SettingError


def open_fabric(accelerator: str, *, devices: int = 1, nodes: int = 1, strategy: str = "auto") -> Fabric:
    """Return the devices and the way they work together; nothing is started yet.

    Raises `SettingError` if this machine does not have them, or Lightning no such strategy.
    """
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
    except (RuntimeError, ValueError, ImportError, MisconfigurationException) as error:
        wanted = {"accelerator": accelerator, "devices": devices, "nodes": nodes, "strategy": strategy}
        usual = {"accelerator": "auto", "devices": 1, "nodes": 1, "strategy": "auto"}
        given = " ".join(f"--{name} {value}" for name, value in wanted.items() if value != usual[name])
        raise SettingError(f"{given}: cannot be had on this machine: {error}") from error


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that can still be had on a device, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory() or None


def peak_memory(device: torch.device) -> int:
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


def peak_in_words(device: torch.device) -> dict[str, int | str]:
    """Return `peak_memory` as the summary of a run has it, with what these bytes are."""
    are = "allocated on the device" if device.type == "cuda" else "resident in the process"
    return {"peak_bytes": peak_memory(device), "peak_bytes_are": are}
