"""Weights, files and the measure of error that the golden numbers of the published code are stated in."""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from support import golden
from torch import Tensor

_TOKENS = {
    "iou_token",
    "mask_tokens",
    "point_embeddings",
    "not_a_point_embed",
    "no_mask_embed",
    "invalid_points",
    "bbox_top_left_embeddings",
    "bbox_bottom_right_embeddings",
}


def recipe(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Draw the weights that the golden numbers were computed with, by name in the published state dict."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    normal = np.asarray(generator.standard_normal(tuple(shape)))
    parts = name.split(".")
    last = parts[-1]
    if last == "positional_encoding_gaussian_matrix":
        values = normal
    elif last in ("running_mean", "num_batches_tracked"):
        values = 0 * normal
    elif last == "running_var":
        values = 0 * normal + 1
    elif last in ("pos_embed", "rel_pos_h", "rel_pos_w", "rel_h", "rel_w"):
        values = 0.2 * normal
    elif last == "weight" and _TOKENS & set(parts):
        values = 0.5 * normal
    elif len(shape) >= 2:
        values = normal / math.sqrt(math.prod(shape[1:]))
    elif last == "weight":
        values = 1 + 0.1 * normal
    else:
        values = 0.02 * normal
    return np.asarray(values, dtype=np.float32)


def recipe_state(published: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return recipe weights for a module. `published`: its names to published ones; `state` gives shapes."""
    return {
        name: torch.from_numpy(recipe(published[name], tensor.shape)).to(tensor.dtype)
        for name, tensor in state.items()
    }


def load_golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of golden file `name` (without its ending) and what its metadata says."""
    with safe_open(golden(f"{name}.safetensors"), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = json.loads(file.metadata()["json"])
    return tensors, metadata


def error(found: Tensor | NDArray[Any], expected: Tensor | NDArray[Any]) -> float:
    """Return ‖found − expected‖ / ‖expected‖ in float64; shapes must be equal."""
    a, b = (torch.as_tensor(value).detach().to(torch.float64) for value in (found, expected))
    assert a.shape == b.shape, f"found {tuple(a.shape)}, expected {tuple(b.shape)}"
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def assert_gradients(
    found: Mapping[str, Tensor], tensors: Mapping[str, Tensor], facts: Mapping[str, Any], tolerance: float
) -> None:
    """Hold gradients, by published name, to the norms, first values and whole gradients of a golden file.

    `facts`: what the file's metadata says of the case; entries of nothing but rounding noise are left out.
    """
    assert set(found) == set(facts["grad_names"])
    for index, name in enumerate(facts["grad_names"]):
        gradient = found[name]
        if name in facts["grad_exact_zero"]:
            assert (gradient == 0).all(), name
        elif name not in facts["grad_noise_only"]:
            assert error(gradient.norm(), tensors["grad_norm"][index]) < tolerance, name
            first = F.pad(gradient.flatten()[:16], (0, max(0, 16 - gradient.numel())))
            expected = tensors["grad_first16"][index]  # all zero where a ReLU is shut
            assert (first - expected).norm() <= tolerance * expected.norm(), name
            if f"grad.{name}" in tensors:
                assert error(gradient, tensors[f"grad.{name}"]) < tolerance, name
