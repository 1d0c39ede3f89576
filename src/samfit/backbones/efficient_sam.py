"""EfficientSAM (Xiong et al. 2023, arXiv 2312.00863): a plain ViT with SAM's idea of prompt and mask.

Attribute names are those of the published state dict, so that published files load as they are.
"""

from collections.abc import Sequence
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samfit.backbones.attention import GridAttention, Relative, attend, relative_positions
from samfit.backbones.base import PARTS, UNCHANGED, Backbone, BlockAdapter, Decoded
from samfit.backbones.card import BackboneCard
from samfit.backbones.chunks import plus
from samfit.backbones.masks import add_masks
from samfit.backbones.mlp import feed_forward
from samfit.backbones.two_way import Perceptron, TwoWayTransformer
from samfit.errors import SettingError, WeightsError
from samfit.frame import Fit, Frame
from samfit.types import BOTTOM_RIGHT, NOTHING, POSITIVE, TOP_LEFT, Prompts

_POSITION_TABLES = ("pos_embed", "rel_h", "rel_w")
_PROMPT_SLOTS = 6
_DECODER_HEADS, _DECODER_MLP_WIDTH, _DECODER_DEPTH = 8, 2048, 2
_MASKS = 4


class EncoderAttention(GridAttention):
    """Self-attention of all cells, without relative positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, g², width) to the same shape."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return self.proj(attend(qkv, self.relative(), self.kind))

    def relative(self) -> Relative | None:
        """Return the relative positions of the grid, or None."""
        return None


class RelativeAttention(EncoderAttention):
    """The same with decomposed relative positions, as in Medical SAM Adapter (arXiv 2304.12620)."""

    def __init__(self, width: int, heads: int, grid: int):
        super().__init__(width, heads)
        self.rel_h = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))
        self.rel_w = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))

    def relative(self) -> Relative:
        """Return the relative positions of the grid, whose sides are those of the tables."""
        height, width = ((len(table) + 1) // 2 for table in (self.rel_h, self.rel_w))
        return relative_positions(self.rel_h, height), relative_positions(self.rel_w, width)


class EncoderMlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return feed_forward(self.fc1, self.fc2, x)


class EncoderBlock(nn.Module):
    """Attention and MLP, each with its norm before and its input added after."""

    def __init__(self, width: int, attention: EncoderAttention, mlp_width: int, norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = EncoderMlp(width, mlp_width)

    def forward(
        self, tokens: Tensor, adapter: BlockAdapter = UNCHANGED, shared: Tensor | None = None
    ) -> Tensor:
        """Map tokens (B, g², width) to the same shape; without gradient the tokens are overwritten."""
        tokens = adapter.before(tokens, shared)
        tokens = plus(tokens, lambda cells: self._attended(cells, adapter), tokens.shape[1])
        tokens = plus(tokens, lambda cells: self._mapped(cells, adapter))
        return adapter.after(tokens, shared)

    def _attended(self, tokens: Tensor, adapter: BlockAdapter) -> Tensor:
        """Return what attention adds to all tokens (B, g², width) of images."""
        return adapter.after_attention(self.attn(self.norm1(tokens)))

    def _mapped(self, tokens: Tensor, adapter: BlockAdapter) -> Tensor:
        """Return what the MLP adds to tokens (..., width)."""
        normed = self.norm2(tokens)
        return adapter.beside_mlp(self.mlp(normed), normed)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class PatchEmbedding(nn.Module):
    """Cuts the frame into patches and maps each to a vector."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, frame: Tensor) -> Tensor:
        """Map (B, 3, N, N) to (B, width, g, g)."""
        return self.proj(frame)


class ImageEncoder(nn.Module):
    """The plain ViT and the neck that brings it to the embedding's width."""

    def __init__(self, card: BackboneCard, grid: int):
        super().__init__()
        shape = card.architecture
        width, heads, embedding_width = shape["width"], shape["heads"], card.embedding_width
        self.pretrained_grid: int = shape["pretrained_grid"]
        self.patch_embed = PatchEmbedding(width, card.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.pretrained_grid**2 + 1, width))
        self.blocks = nn.ModuleList(
            EncoderBlock(
                width,
                RelativeAttention(width, heads, grid)
                if shape["relative_positions"]
                else EncoderAttention(width, heads),
                shape["mlp_width"],
                shape["norm_eps"],
            )
            for _ in range(card.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(width, embedding_width, 1, bias=False),
            ChannelNorm(embedding_width, eps=1e-6),
            nn.Conv2d(embedding_width, embedding_width, 3, padding=1, bias=False),
            ChannelNorm(embedding_width, eps=1e-6),
        )

    def positions(self, grid: int) -> Tensor:
        """Return the position table, without its row for a class token, resized to (1, g², width)."""
        side = self.pretrained_grid
        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(-1, (side, side))
        if grid != side:
            table = F.interpolate(table, (grid, grid), mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)


class PositionEncoding(nn.Module):
    """Random Fourier features of a place in the frame."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, width // 2))

    def forward(self, places: Tensor) -> Tensor:
        """Map (x, y) in 0…1 (..., 2) to (..., E)."""
        with torch.autocast(places.device.type, enabled=False):  # bf16 would move a place by a pixel
            angles = 2 * pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Turns clicks and corners of boxes into tokens, and gives the embedding's cells their places."""

    def __init__(self, width: int, frame_size: int, grid: int):
        super().__init__()
        self.frame_size = frame_size
        self.grid = grid
        self.pe_layer = PositionEncoding(width)
        self.invalid_points = nn.Embedding(1, width)
        self.point_embeddings = nn.Embedding(1, width)
        self.bbox_top_left_embeddings = nn.Embedding(1, width)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, width)

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """Map points (B, P, 2) in frame pixels and labels (B, P) to tokens (B, 6, E)."""
        points, labels = _six_slots(points, labels)
        tokens = self.pe_layer((points + 0.5) / self.frame_size)
        for label, kind in (
            (NOTHING, self.invalid_points),
            (POSITIVE, self.point_embeddings),
            (TOP_LEFT, self.bbox_top_left_embeddings),
            (BOTTOM_RIGHT, self.bbox_bottom_right_embeddings),
        ):
            tokens = tokens + (labels == label).unsqueeze(-1) * kind.weight
        return tokens

    def cell_positions(self) -> Tensor:
        """Return the encoded centres of the embedding's cells, (1, E, g, g)."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


def _six_slots(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Bring prompts to the six slots that the decoder was trained with.

    Empty slots get the published coordinates (-1, -1): unlike SAM's they keep a positional encoding. Of more
    than six points the first six are kept, corners of a box before clicks.
    """
    surplus = labels.shape[1] - _PROMPT_SLOTS
    if surplus > 0:
        rank = 1 - (labels >= TOP_LEFT).int() + (labels == NOTHING).int()
        kept = rank.argsort(dim=1, stable=True)[:, :_PROMPT_SLOTS]
        labels = labels.gather(1, kept)
        points = points.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2))
    elif surplus < 0:
        labels = F.pad(labels, (0, -surplus), value=NOTHING)
        points = F.pad(points, (0, 0, 0, -surplus))
    return points.masked_fill((labels == NOTHING).unsqueeze(-1), -1.0), labels


class MaskDecoder(nn.Module):
    """From embedding and prompt tokens to four masks and the estimate of their IoU."""

    def __init__(self, width: int):
        super().__init__()
        self.transformer = TwoWayTransformer(width, _DECODER_HEADS, _DECODER_MLP_WIDTH, _DECODER_DEPTH)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(_MASKS, width)
        self.final_output_upscaling_layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(width, width // 4, 2, stride=2),
                    nn.GroupNorm(1, width // 4),  # one group: over channels and places together
                    nn.GELU(),
                ),
                nn.Sequential(nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2), nn.GELU()),
            ]
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(width, width, width // 8, hidden_layers=2) for _ in range(_MASKS)
        )
        self.iou_prediction_head = Perceptron(width, width, _MASKS, hidden_layers=2)

    def forward(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 4, 4g, 4g) and IoU estimates (B, 4); the first mask is the single answer.

        `embedding`: (B, E, g, g); `positions`: (1, E, g, g) of its cells; `prompt`: (B, 6, E).
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompt), -1, -1), prompt], dim=1)
        tokens, cells = self.transformer(embedding, positions, tokens)
        picture = cells.transpose(1, 2).unflatten(-1, embedding.shape[-2:])
        for layer in self.final_output_upscaling_layers:
            picture = layer(picture)
        kernels = torch.stack(
            [mlp(tokens[:, 1 + mask]) for mask, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = (kernels @ picture.flatten(2)).unflatten(-1, picture.shape[-2:])
        return logits, self.iou_prediction_head(tokens[:, 0])


class EfficientSam(Backbone):
    """EfficientSAM at one image size.

    The position table keeps its published size and is resized in every `encode`, so names and shapes are the
    published ones at every image size.
    """

    def __init__(self, card: BackboneCard, frame: Frame):
        super().__init__(card, frame)
        self.image_encoder = ImageEncoder(card, self.grid)
        self.prompt_encoder = PromptEncoder(card.embedding_width, frame.size, self.grid)
        self.mask_decoder = MaskDecoder(card.embedding_width)

    def embed(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into tokens (B, g², width)."""
        patches = self.image_encoder.patch_embed(frame).flatten(2).transpose(1, 2).contiguous()
        return patches + self.image_encoder.positions(self.grid).to(patches.dtype)

    def neck(self, tokens: Tensor) -> Tensor:
        """Turn tokens (B, g², width) into embeddings (B, E, g, g)."""
        return self.image_encoder.neck(tokens.transpose(1, 2).unflatten(-1, (self.grid, self.grid)))

    def decode(self, embedding: Tensor, prompts: Prompts) -> Decoded:
        """Answer one prompt an image, given in pixels of the model frame, with every mask of the decoder.

        Masks stand in the order of their tokens, not of their estimated IoU. Of more than six points the last
        clicks are dropped. Negative clicks have no meaning here: the caller looks at `card.negative_clicks`
        and refuses them, because nothing in here may read a tensor's values. Raises `SettingError` for a mask
        prompt, which does not exist either.
        """
        if prompts.mask is not None:
            raise SettingError(
                f"{self.card.name} takes clicks and boxes but no mask as prompt; leave the mask out or "
                "take a SAM backbone"
            )
        tokens = self.prompt_encoder(prompts.points, prompts.labels)
        positions = self.prompt_encoder.cell_positions().to(embedding.dtype)
        return Decoded(*self.mask_decoder(embedding, positions, tokens))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's blocks in order."""
        return list(self.image_encoder.blocks)

    def add_masks(self, count: int) -> None:
        """Give the mask decoder masks until it has `count`, as copies of its candidates 1, 2, 3 in turn."""
        decoder = self.mask_decoder
        decoder.mask_tokens, decoder.output_hypernetworks_mlps, decoder.iou_prediction_head.fc = add_masks(
            decoder.mask_tokens, decoder.output_hypernetworks_mlps, decoder.iou_prediction_head.fc, count
        )

    def part(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one of `PARTS` by their full name, without the head for the IoU."""
        if name not in PARTS:
            raise KeyError(name)
        return {
            full: parameter
            for full, parameter in self.named_parameters()
            if full.startswith(f"{name}.") and ".iou_prediction_head." not in full
        }

    def published_names(self) -> dict[str, str]:
        """Return every tensor's name in the published file: its own, as the card spells it."""
        return {name: self.card.spelled(name) for name in self.state_dict()}

    def fit_positions(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `state` as it is: absolute positions are resized in `encode`, relative ones are not.

        Raises `WeightsError` for an absolute table that has not the published shape, and for a relative one
        that was made at another image size.
        """
        for name, own in self.state_dict().items():
            if name.endswith(_POSITION_TABLES) and state[name].shape != own.shape:
                raise WeightsError(
                    f"position table {name} has shape {tuple(state[name].shape)}, "
                    f"but {self.card.name} has {tuple(own.shape)} at --image-size {self.frame.size}"
                )
        return state


def build(card: BackboneCard, image_size: int, fit: Fit) -> EfficientSam:
    """Make an EfficientSAM of the card's architecture; its tensors hold nothing until weights are loaded."""
    frame = Frame(image_size, card.mean, card.std, fit, card.resampling, card.upsampling)
    with torch.device("meta"):
        model = EfficientSam(card, frame)
    return model.to_empty(device="cpu")
