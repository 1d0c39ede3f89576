"""The convolutional adapter of `cad` in a fraction of its memory, with gradients written by hand.

Block k turns p_{k-1} into p_k = pool(act(z) + p_{k-1}) with z = γ ŷ + β and y = conv(p_{k-1}), where ŷ is y
brought to mean 0 and variance 1 in every channel, `act` the leaky ReLU, `pool` the mean of 2×2 cells and p₀
= conv_up(x). The result is the sum of p₁, p₂ and p₃, each pooled to the grid.

p₀ is never made (`FirstBlock`), and p₁ only some rows at a time, whenever they are read. What stays until
backward is x and p₂; backward makes each y once more. At its largest it holds one y, which the gradient at
the block's input overwrites row by row (`WideBlock`). With fixed statistics, forward needs no whole y.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from samfit.methods.batch_norm import WholeBatchNorm2d, counted_images, sum_over_processes
from samfit.methods.fused_conv.first_block import FirstBlock, framed
from samfit.methods.fused_conv.parts import Block, GridPooling, Part, Settings, Statistics
from samfit.methods.fused_conv.wide_block import WideBlock

PIXELS = 4096
"""How many pixels are worked on at a time, however large images and batch are."""


def applies(x: Tensor) -> bool:
    """Return whether `pooled_features` takes this input (B, C, H, W).

    It can if nobody wants the gradient at x, its size halves evenly, and the device knows float64.
    """
    return not x.requires_grad and x.shape[2] % 8 == x.shape[3] % 8 == 0 and x.device.type != "mps"


def pooled_features(
    x: Tensor,
    up: nn.Conv2d,
    blocks: Sequence[tuple[nn.Conv2d, WholeBatchNorm2d]],
    grid: int,
    weight: Tensor | None,
    pixels: int = PIXELS,
    images: int | None = None,
) -> Tensor:
    """Turn (B, C, H, W) into the sum of the outputs of three blocks, pooled to the grid: (B, E, g, g).

    `up`: the 1×1 convolution to E channels before the blocks, each of which is its convolution and its
    normalisation. `weight`: (B,) or None, as `WholeBatchNorm2d` takes it; running statistics move as there.
    `images`: of how many images the largest array is held at a time, None for all; with fewer, a third of the
    work is done twice, and statistics are still those of all images.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    settings = Settings(blocks[0][1].eps, dtype, pixels, images)
    fixed = [None if bn.training else _running(bn) for _, bn in blocks]
    parameters = [p for conv, bn in blocks for p in (conv.weight, conv.bias, bn.weight, bn.bias)]
    with torch.autocast(device, enabled=False):
        image = framed(x.to(settings.exact))
        pooled, *found = _PooledFeatures.apply(
            settings, grid, image, counted_images(x, weight), fixed, up.weight, up.bias, *parameters
        )
    for (_, bn), *statistics in zip(blocks, *found, strict=True):
        if bn.training:
            bn.update(*statistics)
    return pooled


def _running(bn: WholeBatchNorm2d) -> Statistics:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean = bn.running_mean.double()
    return Statistics(mean, bn.running_var.double(), mean.new_tensor(torch.inf))


class _PooledFeatures(torch.autograd.Function):
    """`pooled_features` of a framed image, and the statistics of the blocks: (3, E), (3, E) and (3,)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx,
        settings: Settings,
        grid: int,
        image: Tensor,
        counted: Tensor,
        fixed: Sequence[Statistics | None],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        up, blocks = _sorted(parameters)
        pooled = image.new_zeros(len(image), len(up[0]), grid, grid)
        first = FirstBlock(image, *up, blocks[0], settings)
        of_first, gram = fixed[0], None
        if of_first is None:
            gram = first.gram(counted)
            of_first = first.statistics(sum_over_processes(gram))
        rows = partial(first.rows, statistics=of_first)
        second = WideBlock(rows, first.shape, blocks[1], counted, settings, settings.images)
        p2, of_second = second.run(fixed[1], pooled)
        rows = partial(Part.of, x=p2)
        p3, of_third = WideBlock(rows, p2.shape, blocks[2], counted, settings).run(fixed[2], pooled)
        pooled += F.adaptive_avg_pool2d(p3.to(pooled.dtype), grid)
        statistics = [torch.stack(values) for values in zip(of_first, of_second, of_third, strict=True)]
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(image, counted, p2, gram, *statistics, *parameters)
        ctx.settings = settings
        return pooled.to(settings.dtype), *statistics

    @staticmethod
    @once_differentiable
    def backward(ctx, at_pooled: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        settings: Settings = ctx.settings
        image, counted, p2, gram, mean, variance, pixels, *parameters = ctx.saved_tensors
        of_first, of_second, of_third = map(Statistics, mean, variance, pixels)
        up, blocks = _sorted(parameters)
        with torch.autocast(image.device.type, enabled=False):
            at_pooled = at_pooled.to(image.dtype)
            size = torch.Size((p2.shape[2] // 2, p2.shape[3] // 2))
            at_p = GridPooling(size, at_pooled).behind(at_pooled, Part(slice(None), 0, size[0]))
            block = WideBlock(partial(Part.of, x=p2), p2.shape, blocks[2], counted, settings)
            held: list[Tensor] = []
            at_third = block.gradients(at_p, at_pooled, of_third, lambda _, at_p: held.append(at_p))
            first = FirstBlock(image, *up, blocks[0], settings)
            rows = partial(first.rows, statistics=of_first)
            block = WideBlock(rows, first.shape, blocks[1], counted, settings, settings.images)
            sums: list[tuple[Tensor, Tensor]] = []
            at_second = block.gradients(
                held.pop(),
                at_pooled,
                of_second,
                lambda images, at_p: sums.append(first.sums(at_p, images, of_first)),
            )
            d, from_shortcut = (torch.stack(values).sum(0) for values in zip(*sums, strict=True))
            at_a, at_first = first.gradients(d, from_shortcut, of_first, gram)
        found = [at_a[:, :-1], at_a[:, -1], *at_first, *at_second, *at_third]
        gradients = [g.reshape(p.shape).to(p.dtype) for g, p in zip(found, parameters, strict=True)]
        return None, None, None, None, None, *gradients


def _sorted(parameters: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor], list[Block]]:
    """Return weight and bias of the 1×1 convolution, and the parameters of each block."""
    up_weight, up_bias, *rest = parameters
    return (up_weight, up_bias), [Block(*rest[start : start + 4]) for start in range(0, len(rest), 4)]
