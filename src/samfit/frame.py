"""The model frame: the square that an encoder sees, and the one mapping between it and the original image.

Image, mask, prompt and everything that a method reads beside the embedding go through the same `Frame`,
so that they stay aligned.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Fit = Literal["pad", "squeeze"]


@dataclass(frozen=True)
class Geometry:
    """Where an image of original `height` and `width` lies in a frame: its upper left `rows` x `columns`."""

    height: int
    width: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Frame:
    """A square of `size` pixels a side with the backbone's normalisation.

    `fit`: `pad` makes the longest side `size` and pads at the right and bottom (SAM's own way);
    `squeeze` makes both sides `size`, so that the aspect is lost.
    """

    size: int
    mean: tuple[float, float, float]
    """Per channel, in 0…255."""
    std: tuple[float, float, float]
    """Per channel, in 0…255."""
    fit: Fit = "pad"
    resampling: Literal["pillow", "torch"] = "pillow"
    """How the image is resized: `pillow` is antialiased bilinear on 8-bit values (SAM), `torch` is plain
    bilinear on floats (EfficientSAM)."""
    upsampling: Literal["bilinear", "bicubic"] = "bilinear"
    """How logits return: `bilinear` through the frame (SAM), `bicubic` in one step (EfficientSAM)."""

    def geometry(self, height: int, width: int) -> Geometry:
        """Return where an image of this original size lies, rounded as SAM's `ResizeLongestSide` does."""
        if self.fit == "squeeze":
            return Geometry(height, width, self.size, self.size)
        scale = self.size / max(height, width)
        rows, columns = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        return Geometry(height, width, rows, columns)

    def at(self, size: int) -> "Frame":
        """Return the same geometry at another size, for what lies beside the frame at lower resolution."""
        return Frame(size, self.mean, self.std, self.fit, self.resampling, self.upsampling)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Resize (H, W, 3) to (rows, columns, 3), without normalisation or padding, values 0…255."""
        geometry = self.geometry(*image.shape[:2])
        if self.resampling == "pillow":
            size = (geometry.columns, geometry.rows)
            return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        size = (geometry.rows, geometry.columns)
        resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        return resized[0].permute(1, 2, 0).numpy()

    def to_model(self, image: NDArray[np.uint8]) -> Tensor:
        """Turn an original (H, W, 3) image, 0…255, into the normalised, padded frame (3, N, N) float32."""
        pixels = torch.from_numpy(np.array(self.resize(image), dtype=np.float32)).permute(2, 0, 1)
        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        return self.pad((pixels - mean) / std)

    def pad(self, resized: Tensor) -> Tensor:
        """Pad (..., rows, columns) with zeros at the right and bottom to (..., N, N)."""
        rows, columns = resized.shape[-2:]
        return F.pad(resized, (0, self.size - columns, 0, self.size - rows))

    def target(self, masks: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Map masks (C, H, W), 0…1, to this frame.

        Returns the target (C, N, N) in 0…1, area-averaged where it shrinks, and the valid area (1, N, N):
        1 on the image, 0 on padding.
        """
        geometry = self.geometry(*masks.shape[1:])
        shrinks = geometry.rows <= geometry.height and geometry.columns <= geometry.width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        size = (geometry.columns, geometry.rows)
        resized = np.stack([cv2.resize(mask, size, interpolation=interpolation) for mask in masks])
        valid = torch.ones(1, geometry.rows, geometry.columns)
        return self.pad(torch.from_numpy(resized.clip(0, 1))), self.pad(valid)

    def points_to_model(self, points: Tensor, geometry: Geometry) -> Tensor:
        """Map (..., 2) points from (x, y) original pixels to (x, y) pixels of the frame."""
        x_scale, y_scale = geometry.columns / geometry.width, geometry.rows / geometry.height
        return points * points.new_tensor([x_scale, y_scale])

    def upsample(self, logits: Tensor, size: int) -> Tensor:
        """Bring low-resolution logits (B, C, 4g, 4g) to `size` pixels a side, padding included."""
        if self.upsampling == "bicubic":
            return F.interpolate(logits, (size, size), mode="bicubic", align_corners=False)
        full = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        if size == self.size:
            return full
        return F.interpolate(full, (size, size), mode="bilinear", align_corners=False)

    def to_original(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Bring low-resolution logits (B, C, 4g, 4g) of one geometry to the original size (B, C, H, W)."""
        size = (geometry.height, geometry.width)
        if self.upsampling == "bicubic":
            full = self.upsample(logits, self.size) if self.fit == "pad" else logits
        else:
            full = self.upsample(logits, self.size)
        if self.fit == "pad":
            full = full[..., : geometry.rows, : geometry.columns]
        return F.interpolate(full, size, mode=self.upsampling, align_corners=False)
