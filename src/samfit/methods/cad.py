"""`cad`: a convolutional adapter beside the frozen encoder (CAD, arXiv 2409.15889)."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samfit.backbones.base import Backbone
from samfit.frame import Frame
from samfit.methods.adapted import Adapter
from samfit.methods.batch_norm import WholeBatchNorm2d
from samfit.methods.high_frequency import high_frequency


def build(backbone: Backbone) -> "ConvAdapter":
    """Make the adapter for a backbone: as wide as its embedding, pooled to its grid."""
    return ConvAdapter(backbone.card.embedding_width, backbone.grid)


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
        self.conv = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.bn = WholeBatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Turn (B, E, H, W) into (B, E, H/2, W/2)."""
        return F.avg_pool2d(F.leaky_relu(self.bn(self.conv(x), weight), 0.1) + x, 2)


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
        x = self.conv_up(x / (x.amax((-2, -1), keepdim=True) + 1e-5))
        pooled = []
        for block in (self.conv_block1, self.conv_block2, self.conv_block3):
            x = block(x, weight)
            pooled.append(F.adaptive_avg_pool2d(x, self.grid))
        return torch.stack(pooled).sum(0).tanh()

    def forward(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        """Add the features of `extra` (B, 6, H, W) to the embedding (B, E, g, g)."""
        assert extra is not None, "cad reads the image"
        return embedding + self.scale * self.features(extra, weight)
