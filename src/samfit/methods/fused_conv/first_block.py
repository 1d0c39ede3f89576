"""Block 1 and the 1×1 convolution before it: one convolution from few channels instead of E."""

import torch
import torch.nn.functional as F
from torch import Tensor

from samfit.methods.fused_conv.parts import (
    DILATION,
    SLOPE,
    Block,
    Normalisation,
    Part,
    Settings,
    Statistics,
    behind_activation,
    gradient_at_bias,
    parts,
    through_statistics,
)

ONES = -5
"""The row of P that is 1 at every pixel: the window's centre on the channel of ones, which is the last."""


def framed(x: Tensor) -> Tensor:
    """Turn (B, 6, H, W) into (B, K, H + 4, W + 4): with a channel of ones, and zeros around."""
    return F.pad(torch.cat([x, torch.ones_like(x[:, :1])], 1), (DILATION,) * 4)


class FirstBlock:
    """From the image x to p₁ without an image of E channels at full size.

    With a channel of ones that carries the bias, conv_up(x) = A x, A = [W_up | b_up] (E, K), K = 7. Hence

        y = conv(conv_up(x)) = M P,  M[o, it] = Σ_c W[o, c, t] A[c, i],  pool(conv_up(x)) = A pool(x),

    where a column of P (9K, pixels) is what the dilated 3×3 window sees of x around a pixel. Outside of the
    image the ones are zero too, as conv_up(x) is. Column `ONES` of M carries the bias of the convolution.
    """

    def __init__(self, image: Tensor, up_weight: Tensor, up_bias: Tensor, block: Block, settings: Settings):
        """Take the `framed` image; what is computed with it has its dtype."""
        self.image = image
        self.block = block
        self.settings = settings
        self.weight = block.weight.double().flatten(2)
        self.a = torch.cat([up_weight.flatten(1), up_bias[:, None]], 1).double()
        self.m = torch.einsum("oct,ci->oit", self.weight, self.a).flatten(1)
        self.m[:, ONES] += block.bias.double()
        height, width = (size // 2 - DILATION for size in image.shape[2:])
        self.shape = torch.Size((image.shape[0], self.m.shape[0], height, width))
        """Of p₁."""
        self.cells = max(1, settings.pixels // 4)

    def gram(self, counted: Tensor) -> Tensor:
        """Return G = P Pᵀ (9K, 9K) in float64 over the images of this process that `counted` (B,) counts."""
        gram = self.m.new_zeros(self.m.shape[1], self.m.shape[1])
        for part in parts(self.shape, self.cells):
            seen = self._seen(part).double()
            gram += ((seen @ seen.mT).sum(1) * counted[part.images, None, None]).sum(0)
        return gram

    def statistics(self, gram: Tensor) -> Statistics:
        """Return the statistics of y = M P from G over all processes."""
        count = gram[ONES, ONES]
        mean = gram[ONES] / count
        covariance = gram / count - torch.outer(mean, mean)
        variance = ((self.m @ covariance) * self.m).sum(1).clamp_min(0)
        return Statistics(self.m @ mean, variance, count)

    def rows(self, part: Part, statistics: Statistics) -> Tensor:
        """Return a part of p₁ (b, E, rows, w)."""
        to_z, a = self._to_z(statistics), self.a.to(self.image.dtype)
        images = part.images.stop - part.images.start
        out = to_z.new_empty(images, self.shape[1], part.last - part.first, self.shape[3])
        for inner in parts(out.shape, self.cells):
            seen = self._seen(part.inner(inner))
            cells = F.leaky_relu_(to_z @ seen, SLOPE).mean(1) + a @ self._pooled(seen)
            inner.of(out).copy_(cells.unflatten(2, (-1, self.shape[3])))
        return out

    def gradients(
        self, d: Tensor, at_a: Tensor, statistics: Statistics, gram: Tensor | None
    ) -> tuple[Tensor, Block]:
        """Turn the `sums` over all images into the gradients at A (E, K) and in the block, in float64.

        As y = M P, all follows from D = Σ dz Pᵀ: Σ dz is its column `ONES`, Σ dz ŷ = (Σ_it M D - mean Σ dz)/σ
        and dM = Σ dy Pᵀ = γ/σ (D - s₁ gᵀ - s₂ Ŷ) with g = Σ P = G[ONES], Ŷ = Σ ŷ Pᵀ = (M G - mean gᵀ)/σ and
        s₁, s₂ from `through_statistics`. `gram`: G of this process, which fixed statistics do not need.
        """
        mean, sigma, scale, _ = Normalisation.of(self.block, statistics, self.settings.eps)
        at_beta = d[:, ONES].clone()
        at_gamma = ((self.m * d).sum(1) - mean * at_beta) / sigma
        if gram is not None:
            s1, s2 = through_statistics(at_beta, at_gamma, statistics.pixels)
            normal = (self.m @ gram - torch.outer(mean, gram[ONES])) / sigma[:, None]
            d = d - (torch.outer(s1, gram[ONES]) + s2[:, None] * normal)
        at_m = (d * scale[:, None]).unflatten(1, (-1, 9))
        at_weight = torch.einsum("oit,ci->oct", at_m, self.a).unflatten(2, (3, 3))
        at_a = at_a + torch.einsum("oit,oct->ci", at_m, self.weight)
        at_bias = gradient_at_bias(at_beta, scale, statistics.pixels)
        return at_a, Block(at_weight, at_bias, at_gamma, at_beta)

    def sums(self, at_p: Tensor, images: slice, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return D (E, 9K), and what comes to A (E, K) through the shortcut, over some images.

        `at_p`: the gradient at their p₁, (b, E, h, w).
        """
        to_z = self._to_z(statistics)
        d, at_a = torch.zeros_like(self.m), torch.zeros_like(self.a)
        whole = Part(images, 0, self.shape[2])
        for part in parts(at_p.shape, self.cells):
            seen = self._seen(whole.inner(part))
            cells = part.of(at_p).flatten(2).to(seen.dtype)
            z = to_z @ seen
            at_z = behind_activation((cells / 4)[:, None].expand_as(z), z)
            d += (at_z @ seen.mT).sum((0, 1))
            at_a += (cells @ self._pooled(seen).mT).sum(0)
        return d, at_a

    def _to_z(self, statistics: Statistics) -> Tensor:
        """Return the matrix (E, 9K) that makes z of P."""
        _, _, scale, shift = Normalisation.of(self.block, statistics, self.settings.eps)
        matrix = self.m * scale[:, None]
        matrix[:, ONES] += shift
        return matrix.to(self.image.dtype)

    def _seen(self, part: Part) -> Tensor:
        """Return P for a part of p₁ as (b, 4, 9K, cells): a matrix for each of a cell's four pixels."""
        rows = self.image[part.images, :, 2 * part.first : 2 * (part.last + DILATION)]
        corners = [rows[:, :, y:, x:] for y in range(2) for x in range(2)]
        return torch.stack([F.unfold(corner, 3, dilation=DILATION, stride=2) for corner in corners], 1)

    @staticmethod
    def _pooled(seen: Tensor) -> Tensor:
        """Return pool(x) (b, K, cells): the means over a cell of what the window's centre sees."""
        return seen[:, :, 4::9].mean(1)
