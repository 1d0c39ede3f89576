"""EfficientSAM's two-way transformer: prompt tokens and image cells that read from each other.

It differs from SAM's in two places: the tokens' positions are added to the values too, and the first
self-attention keeps its input. Attribute names are those of the published state dict.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self, width: int, hidden: int, out: int, hidden_layers: int, activation: type[nn.Module] = nn.GELU
    ):
        super().__init__()
        widths = [width] + [hidden] * hidden_layers
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), activation()) for before, after in pairwise(widths)
        )
        self.fc = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., out)."""
        for layer in self.layers:
            x = layer(x)
        return self.fc(x)


class Attention(nn.Module):
    """Multi-head attention with projections to an inner width."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Answer queries (B, Q, E) from keys and values (B, K, E): (B, Q, E)."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        answer = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(answer.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Tokens read from each other, then from the image; then the image reads from the tokens."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, activation: type[nn.Module], adds_positions: bool
    ):
        super().__init__()
        self.adds_positions = adds_positions
        self.self_attn = Attention(width, width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width // 2, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width, mlp_width, width, hidden_layers=1, activation=activation)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width // 2, heads)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, cells: Tensor, token_positions: Tensor, cell_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, E) and cells (B, g², E) after one round, positions of the same shapes."""
        if self.adds_positions:
            tokens = tokens + token_positions
        tokens = self.norm1(tokens + self.self_attn(tokens, tokens, tokens))
        placed_cells = cells + cell_positions
        read = self.cross_attn_token_to_image(tokens + token_positions, placed_cells, cells)
        tokens = self.norm2(tokens + read)
        tokens = self.norm3(tokens + self.mlp(tokens))
        read = self.cross_attn_image_to_token(placed_cells, tokens + token_positions, tokens)
        return tokens, self.norm4(cells + read)


class TwoWayTransformer(nn.Module):
    """Two rounds of `TwoWayBlock`, then the tokens read from the image once more."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, depth: int, activation: type[nn.Module] = nn.GELU
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            # the first round starts from the positions themselves: there is nothing to add them to
            TwoWayBlock(width, heads, mlp_width, activation, adds_positions=index > 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(width, width // 2, heads)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Let prompt tokens (B, T, E) and an embedding (B, E, g, g) with its positions read from each other.

        Returns the tokens (B, T, E) and the image's cells (B, g², E) in rows. The prompt tokens are also
        the positions of the tokens.
        """
        cells = embedding.flatten(2).transpose(1, 2)
        cell_positions = positions.flatten(2).transpose(1, 2)
        tokens = prompt
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, prompt, cell_positions)
        read = self.final_attn_token_to_image(tokens + prompt, cells + cell_positions, cells)
        return self.norm_final_attn(tokens + read), cells
