"""SAM's modules where samfit needs more of them than transformers offers: places to adapt, and all masks."""

import torch
from torch import Tensor, nn
from transformers import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam import modeling_sam

from samfit.backbones.attention import GridAttention, attend, relative_positions
from samfit.backbones.base import UNCHANGED, BlockAdapter
from samfit.backbones.chunks import plus
from samfit.backbones.mlp import feed_forward
from samfit.backbones.two_way import TwoWayTransformer


class Attention(modeling_sam.SamVisionAttention, GridAttention):
    """Attention in windows, or of all cells, without maps; its tensors are transformers'."""

    def forward(self, cells: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B, H, W, width) to the same shape."""
        height, width = cells.shape[1:3]
        qkv = self.qkv(cells).flatten(1, 2).unflatten(-1, (3, self.num_attention_heads, -1))
        relative = None
        if self.use_rel_pos:
            relative = relative_positions(self.rel_pos_h, height), relative_positions(self.rel_pos_w, width)
        return self.proj(attend(qkv, relative, self.kind).unflatten(1, (height, width)))


class Mlp(modeling_sam.SamMLPBlock):
    """The MLP of an encoder block, lean where it is frozen; its tensors are transformers'."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return feed_forward(self.lin1, self.lin2, hidden_states)


class Block(modeling_sam.SamVisionLayer):
    """An encoder block with the four places of a `BlockAdapter`; its tensors are transformers'."""

    def __init__(self, config: SamVisionConfig, window_size: int, *, pads_before_norm: bool):
        super().__init__(config, window_size)
        self.attn = Attention(config, window_size)
        self.mlp = Mlp(config)
        self.pads_before_norm = pads_before_norm

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, tokens: Tensor, adapter: BlockAdapter = UNCHANGED, shared: Tensor | None = None
    ) -> Tensor:
        """Map tokens (B, g, g, width) to the same shape; without gradient the tokens are overwritten."""
        tokens = adapter.before(tokens, shared)
        rows_together = self.window_size or tokens.shape[1]
        tokens = plus(tokens, lambda rows: self._attended(rows, adapter), rows_together)
        tokens = plus(tokens, lambda rows: self._mapped(rows, adapter))
        return adapter.after(tokens, shared)

    def _attended(self, tokens: Tensor, adapter: BlockAdapter) -> Tensor:
        """Return what attention adds to rows of tokens (B, H, W, width), H whole windows or what is left.

        Windows are padded with zeros after the norm, as SAM was trained; with `pads_before_norm` before it,
        so that padding holds the norm's bias.
        """
        size, grid = self.window_size, (tokens.shape[1], tokens.shape[2])
        windows, padded = tokens, grid
        if not self.pads_before_norm:
            windows = self.layer_norm1(windows)
        if size:
            windows, padded = self.window_partition(windows, size)
        if self.pads_before_norm:
            windows = self.layer_norm1(windows)
        attended = adapter.after_attention(self.attn(windows))
        return self.window_unpartition(attended, size, padded, grid) if size else attended

    def _mapped(self, tokens: Tensor, adapter: BlockAdapter) -> Tensor:
        """Return what the MLP adds to tokens (..., width)."""
        normed = self.layer_norm2(tokens)
        return adapter.beside_mlp(self.mlp(normed), normed)


class SamTwoWay(modeling_sam.SamTwoWayTransformer):
    """SAM's two-way transformer, called as EfficientSAM's is."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, embedding: Tensor, positions: Tensor, prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Let prompt tokens (B, T, E) and an embedding (B, E, g, g) with its positions read from each other.

        Returns the tokens (B, T, E) and the image's cells (B, g², E) in rows.
        """
        tokens, cells = super().forward(
            point_embeddings=prompt[:, None],
            image_embeddings=embedding,
            image_positional_embeddings=positions,
            attention_similarity=None,  # pyright: ignore[reportArgumentType]
        )
        return tokens[:, 0], cells[:, 0]


class MaskDecoder(modeling_sam.SamMaskDecoder):
    """SAM's mask decoder; returns every mask, the single answer first. Its tensors are transformers'.

    `two_way`: `sam`, or `efficientsam` for that transformer with the ReLU of SAM's, as Medical SAM Adapter
    (arXiv 2304.12620) has it; then the transformer's tensors have their published names.
    """

    def __init__(self, config: SamMaskDecoderConfig, *, two_way: str):
        super().__init__(config)
        width, heads = config.hidden_size, config.num_attention_heads
        self.transformer = (
            SamTwoWay(config)
            if two_way == "sam"
            else TwoWayTransformer(width, heads, config.mlp_dim, config.num_hidden_layers, nn.ReLU)
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, embedding: Tensor, positions: Tensor, prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, K, 4g, 4g) and IoU estimates (B, K).

        `embedding`: (B, E, g, g), with the dense prompt added; `positions`: of its cells, the same shape;
        `prompt`: (B, P, E).
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens, cells = self.transformer(
            embedding, positions, torch.cat([own.expand(len(prompt), -1, -1), prompt], dim=1)
        )
        picture = cells.transpose(1, 2).unflatten(-1, embedding.shape[-2:])
        picture = self.activation(self.upscale_layer_norm(self.upscale_conv1(picture)))
        picture = self.activation(self.upscale_conv2(picture))
        kernels = torch.stack(
            [mlp(tokens[:, 1 + mask]) for mask, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = (kernels @ picture.flatten(2)).unflatten(-1, picture.shape[-2:])
        return logits, self.iou_prediction_head(tokens[:, 0])
