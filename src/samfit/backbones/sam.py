"""Segment Anything (arXiv 2304.02643) on the parts of transformers' `SamModel`, at any image size."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from samfit.backbones.base import Backbone, Decoded
from samfit.backbones.card import BackboneCard
from samfit.backbones.masks import PUBLISHED, add_masks
from samfit.backbones.sam_modules import Block, MaskDecoder
from samfit.errors import WeightsError
from samfit.frame import Fit, Frame
from samfit.types import NOTHING, Prompts

_HEAD = r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\."
_TO_PUBLISHED = (
    (r"^image_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^image_encoder\.layers\.(\d+)\.", r"image_encoder.blocks.\1."),
    (r"^(image_encoder\.blocks\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^image_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^image_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^image_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^image_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    # The heads count their layers from 0; transformers names the first and the last.
    (_HEAD + r"layers\.0\.", r"\1.layers.1."),
    (_HEAD + r"proj_in\.", r"\1.layers.0."),
    (_HEAD + r"proj_out\.", r"\1.layers.2."),
)
_GAUSSIAN_MATRIX = "shared_embedding.positional_embedding"
_IOU_HEAD = "iou_prediction_head."
_POSITION_TABLE = "image_encoder.pos_embed"
_RELATIVE_POSITIONS = re.compile(r"image_encoder\.layers\.(\d+)\.attn\.rel_pos_[hw]")


def build(card: BackboneCard, image_size: int, fit: Fit) -> "Sam":
    """Make a SAM of the card's architecture; its tensors hold nothing until weights are loaded or drawn."""
    frame = Frame(image_size, card.mean, card.std, fit, card.resampling, card.upsampling)
    with torch.device("meta"):
        sam = Sam(card, frame)
    return sam.to_empty(device="cpu")


class Sam(Backbone):
    """SAM with the encoder, prompt encoder and mask decoder modules of transformers."""

    def __init__(self, card: BackboneCard, frame: Frame):
        super().__init__(card, frame)
        config = _config(card, frame.size)
        model = SamModel(config)
        self.image_encoder = model.vision_encoder
        self.image_encoder.layers = nn.ModuleList(
            Block(
                self.image_encoder.config,
                0 if index in card.architecture["global_blocks"] else card.architecture["window"],
                pads_before_norm=card.architecture["pads_before_norm"],
            )
            for index in range(card.depth)
        )
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = MaskDecoder(model.mask_decoder.config, two_way=card.architecture["two_way"])

    def embed(self, frame: Tensor) -> Tensor:
        """Turn model frames (B, 3, N, N) into tokens (B, g, g, width)."""
        patches, positions = self.image_encoder.patch_embed(frame).contiguous(), self.image_encoder.pos_embed
        assert positions is not None, "SAM has position tables"
        return patches + positions.to(patches.dtype)

    def neck(self, tokens: Tensor) -> Tensor:
        """Turn tokens (B, g, g, width) into embeddings (B, E, g, g)."""
        return self.image_encoder.neck(tokens)

    def decode(self, embedding: Tensor, prompts: Prompts) -> Decoded:
        """Answer one prompt an image with every mask of the decoder."""
        positions = self._image_positions().to(embedding.dtype).expand(len(embedding), -1, -1, -1)
        picture = embedding + self._dense(prompts).to(embedding.dtype)
        return Decoded(*self.mask_decoder(picture, positions, self._sparse(prompts)))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's blocks in order."""
        return list(self.image_encoder.layers)

    def add_masks(self, count: int) -> None:
        """Give the mask decoder masks until it has `count`, as copies of its candidates 1, 2, 3 in turn."""
        decoder = self.mask_decoder
        decoder.mask_tokens, decoder.output_hypernetworks_mlps, decoder.iou_prediction_head.proj_out = (
            add_masks(
                decoder.mask_tokens,
                decoder.output_hypernetworks_mlps,
                decoder.iou_prediction_head.proj_out,
                count,
            )
        )

    def part(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters of a part; see `Backbone.part` for what belongs to none."""
        return {
            f"{name}.{key}": parameter
            for key, parameter in self.get_submodule(name).named_parameters()
            if key != _GAUSSIAN_MATRIX and not key.startswith(_IOU_HEAD)
        }

    def published_names(self) -> dict[str, str]:
        """Return for every tensor its name in the published `.pth` file."""
        return {name: self._published(name) for name in self.state_dict()}

    def hub_names(self) -> dict[str, str]:
        """Return for every tensor its name in the hub's file; nothing where transformers has no such SAM."""
        numbers = self.card.architecture
        if numbers["pads_before_norm"] or numbers["two_way"] != "sam":
            return {}
        names = {name: name.replace("image_encoder.", "vision_encoder.", 1) for name in self.state_dict()}
        names[f"prompt_encoder.{_GAUSSIAN_MATRIX}"] = "shared_image_embedding.positional_embedding"
        return names

    def hub_config(self) -> str | None:
        """Return the `config.json` of this SAM, with its image size and masks, or None as in `hub_names`."""
        if not self.hub_names():
            return None
        config = _config(self.card, self.frame.size, self.mask_decoder.mask_tokens.num_embeddings)
        config.architectures = ["SamModel"]
        return config.to_json_string()

    def fit_positions(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resize position tables: absolute ones bicubically, those of global blocks linearly.

        Tables of window blocks stay as they are: the window has the same size at every image size. So do
        tables that are made for this image size already.
        """
        width = self.card.architecture["width"]
        head_width = width // self.card.architecture["heads"]
        sides = (self.card.architecture["pretrained_grid"], self.grid)
        absolute = [(1, side, side, width) for side in sides]
        relative = [(2 * side - 1, head_width) for side in sides]
        fitted = dict(state)
        table = state[_POSITION_TABLE]
        self._check_table(_POSITION_TABLE, table, absolute)
        if table.shape[1] != self.grid:
            grid = F.interpolate(table.permute(0, 3, 1, 2), (self.grid, self.grid), mode="bicubic")
            fitted[_POSITION_TABLE] = grid.permute(0, 2, 3, 1)
        for name, table in state.items():
            match = _RELATIVE_POSITIONS.fullmatch(name)
            if not match or int(match[1]) not in self.card.architecture["global_blocks"]:
                continue
            self._check_table(name, table, relative)
            if len(table) != 2 * self.grid - 1:
                fitted[name] = F.interpolate(table.T[None], 2 * self.grid - 1, mode="linear")[0].T
        return fitted

    def _check_table(self, name: str, table: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
        if tuple(table.shape) not in shapes:
            raise WeightsError(
                f"position table {self._published(name)} has shape {tuple(table.shape)}, "
                f"expected {' or '.join(map(str, dict.fromkeys(shapes)))} for {self.card.name} at "
                f"--image-size {self.frame.size}"
            )

    def _published(self, name: str) -> str:
        for pattern, replacement in _TO_PUBLISHED:
            name = re.sub(pattern, replacement, name)
        return self.card.spelled(name)

    def _sparse(self, prompts: Prompts) -> Tensor:
        """Embed the points (B, P, 2) of prompts as tokens (B, P, E), or (B, P + 1, E) for clicks alone."""
        points, labels = prompts.points, prompts.labels
        if not prompts.has_box and points.shape[1] > 0:
            # SAM closes a list of clicks with an empty slot; a box needs none.
            points = F.pad(points, (0, 0, 0, 1))
            labels = F.pad(labels, (0, 1), value=NOTHING)
        size = self.frame.size
        encoder = self.prompt_encoder
        positions = self._encode_places((points + 0.5) / size)
        kinds = [encoder.not_a_point_embed.weight, *(embed.weight for embed in encoder.point_embed)]
        learned = torch.cat(kinds)[labels - NOTHING]
        return torch.where((labels == NOTHING)[..., None], learned, positions + learned)

    def _dense(self, prompts: Prompts) -> Tensor:
        encoder = self.prompt_encoder
        if prompts.mask is not None:
            return encoder.mask_embed(prompts.mask)
        empty = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return empty.expand(len(prompts.points), -1, self.grid, self.grid)

    def _image_positions(self) -> Tensor:
        """Encode the centre of every cell of the grid: (1, E, g, g)."""
        matrix = self.prompt_encoder.shared_embedding.positional_embedding
        centres = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self._encode_places(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]

    def _encode_places(self, places: Tensor) -> Tensor:
        """Encode (x, y) in 0…1 (H, W, 2) as (H, W, E), in float32: bf16 would move a place by a pixel."""
        with torch.autocast(places.device.type, enabled=False):
            return self.prompt_encoder.shared_embedding(places[None])[0]


def _config(card: BackboneCard, image_size: int, masks: int = PUBLISHED) -> SamConfig:
    numbers, width = card.architecture, card.embedding_width
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=numbers["width"],
            output_channels=width,
            num_hidden_layers=card.depth,
            num_attention_heads=numbers["heads"],
            image_size=image_size,
            patch_size=card.patch,
            window_size=numbers["window"],
            global_attn_indexes=list(numbers["global_blocks"]),
            num_pos_feats=width // 2,
            mlp_dim=numbers["mlp_width"],
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=width, image_size=image_size, patch_size=card.patch
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=width,
            mlp_dim=numbers["decoder_mlp_width"],
            num_attention_heads=numbers["decoder_heads"],
            iou_head_hidden_dim=width,
            num_multimask_outputs=masks - 1,
            # As published; transformers' default of 1e-6 moves logits by 5e-5.
            layer_norm_eps=1e-5,
        ),
    )
