"""`cad`: a convolutional adapter beside the frozen encoder (CAD, arXiv 2409.15889)."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samfit.backbones.base import Backbone
from samfit.backbones.chunks import limits
from samfit.frame import Frame
from samfit.methods import fused_conv
from samfit.methods.adapter import Adapter
from samfit.methods.batch_norm import WholeBatchNorm2d
from samfit.methods.fused_conv.parts import DILATION, SLOPE
from samfit.methods.high_frequency import high_frequency
from samfit.options import MethodOptions


def build(backbone: Backbone, options: MethodOptions, first_block: int | None) -> "ConvAdapter":
    """Make the adapter for a backbone: as wide as its embedding, pooled to its grid."""
    return ConvAdapter(backbone.card.embedding_width, backbone.grid)


def published_names(adapter: "ConvAdapter") -> dict[str, str]:
    """Return for every tensor of the adapter's state dict its name in the published model's."""
    return {name: f"conv_adapter.{name}" for name in adapter.state_dict()}


def read(image: NDArray[np.uint8], frame: Frame) -> Tensor:
    """Turn an original image (H, W, 3) into the adapter's input (6, N/2, N/2), values 0…255.

    The image in the model frame's geometry at half its size, and its high-frequency image; the latter is
    taken before padding, so that the edge of the padding is not taken for detail.
    """
    half = frame.at(frame.size // 2)
    resized = torch.from_numpy(np.array(half.resize(image), dtype=np.float32)).permute(2, 0, 1)
    return half.pad(torch.cat([resized, high_frequency(resized)]))


class ConvBlock(nn.Module):
    """Dilated convolution with a shortcut, then half the size."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=DILATION, dilation=DILATION)
        self.bn = WholeBatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Turn (B, E, H, W) into (B, E, H/2, W/2)."""
        return F.avg_pool2d(F.leaky_relu(self.bn(self.conv(x), weight), SLOPE) + x, 2)


class ConvAdapter(Adapter):
    """Three convolutional blocks whose outputs, pooled to the grid, are added to the embedding.

    Parameter names are those of the published module.
    """

    scale = 0.1
    """Share of the adapter's features, which lie in -1…1, in the embedding."""

    def __init__(self, width: int, grid: int, channels: int = 6):
        super().__init__()
        self.grid = grid
        self.conv_up = nn.Conv2d(channels, width, 1)
        self.conv_block1 = ConvBlock(width)
        self.conv_block2 = ConvBlock(width)
        self.conv_block3 = ConvBlock(width)

    def features(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Turn image and high-frequency image (B, 6, H, W) into features (B, E, g, g) in -1…1."""
        if not fused_conv.applies(x):
            return self.plain_features(x, weight)
        blocks = [(block.conv, block.bn) for block in self._blocks()]
        pixels = fused_conv.PIXELS // limits().divisor
        return fused_conv.pooled_features(
            _scaled(x), self.conv_up, blocks, self.grid, weight, pixels, limits().images
        ).tanh()

    def plain_features(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Do what `features` does by torch's own modules: whatever the size, with a gradient for x if wanted.

        This takes up to forty times the memory, and is what the other way is held to.
        """
        x = self.conv_up(_scaled(x))
        pooled = []
        for block in self._blocks():
            x = block(x, weight)
            pooled.append(F.adaptive_avg_pool2d(x, self.grid))
        return torch.stack(pooled).sum(0).tanh()

    def _blocks(self) -> tuple[ConvBlock, ConvBlock, ConvBlock]:
        return self.conv_block1, self.conv_block2, self.conv_block3

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        """Add the features of `extra` (B, 6, H, W) to the embedding (B, E, g, g)."""
        assert extra is not None, "cad reads the image"
        return embedding + self.scale * self.features(extra, weight)


def _scaled(x: Tensor) -> Tensor:
    """Bring the largest value of every channel to 1."""
    return x / (x.amax((-2, -1), keepdim=True) + 1e-5)
