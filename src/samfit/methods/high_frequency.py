"""The high-frequency image of CAD and SAM-Adapter (arXiv 2303.10586 as used in arXiv 2409.15889)."""

import torch
from torch import Tensor


def high_frequency(image: Tensor, tau: float = 0.25) -> Tensor:
    """Remove the low frequencies of every channel and return the absolute rest.

    `image`: (..., H, W), any range. `tau`: share of the spectrum's area that is removed, as a centred square
    of half-side m = int(sqrt(H · W · tau) // 2). Returns the shape of `image`.
    """
    height, width = image.shape[-2:]
    half_side = int((height * width * tau) ** 0.5 // 2)
    spectrum = torch.fft.fftshift(torch.fft.fft2(image, norm="forward"), dim=(-2, -1))
    keep = torch.ones(height, width, dtype=image.dtype, device=image.device)
    # A negative start counts from the end, as published: an elongated image loses a smaller block.
    keep[
        height // 2 - half_side : height // 2 + half_side, width // 2 - half_side : width // 2 + half_side
    ] = 0
    spectrum = torch.fft.ifftshift(spectrum * keep, dim=(-2, -1))
    return torch.fft.ifft2(spectrum, norm="forward").real.abs()
