"""Random base weights, drawn as the published code of both families draws them."""

import torch
from torch import nn

from samfit.backbones.base import Backbone

_BY_MODULE = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding, nn.LayerNorm, nn.GroupNorm)
"""Modules whose own `reset_parameters` is what the published code relies on."""
_DEVIATION_BY_NAME = {
    "pos_embed": 0.02,
    "rel_pos_h": 0.02,
    "rel_pos_w": 0.02,
    "rel_h": 0.02,
    "rel_w": 0.02,
    # The random matrix of the positional encoding. With transformers' own scale of half the encoder's width
    # neighbouring places have unrelated codes, and prompts carry no meaning.
    "positional_embedding": 1.0,
    "positional_encoding_gaussian_matrix": 1.0,
}


def draw_weights(backbone: Backbone, seed: int) -> None:
    """Set every tensor of a backbone to random values that depend on `seed` alone.

    Linear layers, convolutions and norms have torch's defaults, embeddings and tokens are normal, position
    tables normal with 0.02. The global random state is left as it was. Raises `RuntimeError` for a tensor
    that no rule covers, because it would keep what memory happened to hold.
    """
    drawn: set[int] = set()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in backbone.modules():
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            if isinstance(module, _BY_MODULE):
                module.reset_parameters()
                drawn.update(map(id, own.values()))
                continue
            for name, tensor in own.items():
                if name in _DEVIATION_BY_NAME and id(tensor) not in drawn:
                    tensor.normal_(std=_DEVIATION_BY_NAME[name])
                    drawn.add(id(tensor))
    everything = (*backbone.named_parameters(), *backbone.named_buffers())
    missed = [name for name, tensor in everything if id(tensor) not in drawn]
    if missed:
        raise RuntimeError(f"no rule draws the random weights of {', '.join(missed)}")
