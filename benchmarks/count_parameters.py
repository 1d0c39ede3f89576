"""Count what each method trains on each backbone, and write it where `samfit list methods` reads it.

    python benchmarks/count_parameters.py

At the defaults of method and backbone, with one class. Needs no weights: everything is built on torch's meta
device, which keeps shapes alone.
"""

from importlib import import_module

import torch

from samfit.backbones import BACKBONES
from samfit.files import write_json
from samfit.methods import METHODS, PARAMETERS, attach


def count(method: str, backbone: str) -> int:
    """Return how many parameters a method trains on a backbone."""
    card = BACKBONES[backbone]
    empty = import_module(f"samfit.backbones.{card.module}").build(card, card.image_size, card.fit).to("meta")
    with torch.device("meta"):
        model = attach(empty, method)
    return sum(parameter.numel() for parameter in model.trained().values())


if __name__ == "__main__":
    write_json(PARAMETERS, {method: {name: count(method, name) for name in BACKBONES} for method in METHODS})
