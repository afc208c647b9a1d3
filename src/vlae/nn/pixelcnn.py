"""The local autoregressive decoder, a small masked PixelCNN (VLAE sections 3.1 and 4.1).

p(x | z) = prod_i p(x_i | z, x_window(i)). The kernels alone determine the window, which
`context_pixels` lists. Kernels are stored without the rows that the mask removes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.native.network import Kind, Operation
from vlae.nn.containers import ModuleList
from vlae.nn.elu import elu
from vlae.nn.weightnorm import Conv2d, WeightNorm, new_direction
from vlae.receptive_field import causal_taps, decoder_kernels, reach

SIDE = 28  # height and width of the image in pixels, for the C++ core


def causal_mask(kernel: int, own_pixel: bool) -> Tensor:
    """Return a causal mask (kernel // 2 + 1, kernel): 1 at earlier pixels in raster order.

    Type A excludes the pixel itself, type B (`own_pixel`) includes it.
    """
    half = kernel // 2
    mask = torch.zeros(half + 1, kernel)
    for row, column in causal_taps(kernel, own_pixel):
        mask[row + half, column + half] = 1
    return mask


class MaskedConv2d(WeightNorm):
    """(B, in, H, W) -> (B, out, H, W); output pixel i sees inputs before i (A) or up to i (B).

    The last `free` input channels are not masked within the cropped kernel, because they carry no
    pixels of the image.

    >>> layer = MaskedConv2d(1, 4, kernel=3, own_pixel=False)
    >>> x = torch.zeros(1, 1, 5, 5, requires_grad=True)
    >>> layer(x)[0, :, 2, 2].sum().backward()
    >>> x.grad[0, 0].nonzero().tolist()  # what the pixel in row 2, column 2 sees
    [[1, 1], [1, 2], [1, 3], [2, 1]]
    """

    padding: int

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        own_pixel: bool,
        free: int = 0,
        direction: bool = True,
    ) -> None:
        mask = causal_mask(kernel, own_pixel).repeat(1, inputs, 1, 1)
        mask[:, inputs - free :] = 1
        super().__init__((outputs, inputs, *mask.shape[2:]), mask=mask, direction=direction)
        self.padding = kernel // 2

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), with the weight's cropped kernel."""
        return F.conv2d(F.pad(x, (self.padding, self.padding, self.padding, 0)), weight, bias)


class PointwiseBlock(nn.Module):
    """x + conv1x1(elu(conv1x1(elu(x)))): adds depth, but no context."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.first = Conv2d(maps, maps, 1)
        self.second = Conv2d(maps, maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, maps, H, W) -> (B, maps, H, W)."""
        return x + self.second(elu(self.first(elu(x))))


class MaskedBlock(nn.Module):
    """x + masked3x3(elu(masked3x3(elu(x)))); the caller passes the direction tensors."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.first = MaskedConv2d(maps, maps, 3, own_pixel=True, direction=False)
        self.second = MaskedConv2d(maps, maps, 3, own_pixel=True, direction=False)

    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(B, maps, H, W) -> (B, maps, H, W); `first` and `second` are the direction tensors."""
        return x + self.second(elu(self.first(elu(x), first)), second)


class PixelCNN(nn.Module):
    """Bernoulli logits of each pixel given the pixels in its window and conditioning maps.

    The layers are, in order: a type-A convolution; `masked_blocks` residual blocks of two masked
    3x3 convolutions; with `last_masked`, one more masked 3x3 convolution; and a 1x1 convolution to
    one logit per pixel. `pointwise_blocks` residual 1x1 blocks are spread before, between and
    after the masked blocks. The first layer has no shortcut, so logit i never sees pixel i.

    With `tied`, the masked 3x3 convolutions share one direction tensor; each keeps its own gain
    and bias.

    >>> decoder = PixelCNN(4, 12, first_kernel=7, masked_blocks=6, pointwise_blocks=4, tied=True)
    >>> x, maps = torch.bernoulli(torch.full((2, 1, 28, 28), 0.2)), torch.randn(2, 4, 28, 28)
    >>> decoder(x, maps).shape  # a logit for each pixel
    torch.Size([2, 1, 28, 28])
    >>> len(decoder.context_pixels())  # how many pixels each of them sees
    402
    """

    def __init__(
        self,
        maps: int,
        filters: int,
        first_kernel: int,
        masked_blocks: int,
        pointwise_blocks: int,
        tied: bool,
        last_masked: bool = False,
    ) -> None:
        super().__init__()
        self.first_kernel = first_kernel
        self.input = MaskedConv2d(1 + maps, filters, first_kernel, own_pixel=False, free=maps)
        self.masked = ModuleList(MaskedBlock(filters) for _ in range(masked_blocks))
        uses = 2 * masked_blocks + last_masked
        self.directions = nn.ParameterList(
            nn.Parameter(new_direction((filters, filters, 2, 3)))
            for _ in range(min(uses, 1) if tied else uses)
        )
        self.pointwise = ModuleList(PointwiseBlock(filters) for _ in range(pointwise_blocks))
        self.last_masked = (
            MaskedConv2d(filters, filters, 3, own_pixel=True, direction=False)
            if last_masked
            else None
        )
        self.output = Conv2d(filters, 1, 1)

    def forward(self, x: Tensor, maps: Tensor | None = None) -> Tensor:
        """Images x (B, 1, H, W) of 0/1, maps (B, maps, H, W) or None -> logits (B, 1, H, W)."""
        h = self.input(x if maps is None else torch.cat([x.to(maps.dtype), maps], 1))
        for block, directions in self.blocks():
            h = block(h, *directions)
        if self.last_masked is not None:
            h = self.last_masked(elu(h), self.directions[-1])
        return self.output(elu(h))

    def blocks(self) -> list[tuple[PointwiseBlock | MaskedBlock, tuple[Tensor, ...]]]:
        """Return the residual blocks in order, the masked ones with their direction tensors."""
        gaps = len(self.masked) + 1
        result: list[tuple[PointwiseBlock | MaskedBlock, tuple[Tensor, ...]]] = []
        for gap in range(gaps):
            # Block j goes into gap j * gaps // count: evenly spread, earlier gaps first.
            for j, block in enumerate(self.pointwise):
                if j * gaps // len(self.pointwise) == gap:
                    result.append((block, ()))
            if gap < len(self.masked):
                shared = len(self.directions) == 1
                first, second = (0, 0) if shared else (2 * gap, 2 * gap + 1)
                directions = (self.directions[first], self.directions[second])
                result.append((self.masked[gap], directions))
        return result

    def operations(self) -> list[Operation]:
        """Describe this network to the C++ core; its input is the image followed by the maps."""
        filters = self.output.own_direction().shape[1]
        inputs = self.input.own_direction().shape[1]
        first, last, side = self.input, self.output, (SIDE, SIDE)
        result = [
            Operation(
                Kind.CONV,
                (inputs, filters),
                side,
                ((first, first.own_direction()),),
                self.first_kernel,
                causal=True,
            )
        ]
        for block, directions in self.blocks():
            layers = (block.first, block.second)
            directions = directions or tuple(layer.own_direction() for layer in layers)
            result.append(
                Operation(
                    Kind.BLOCK,
                    (filters, filters),
                    side,
                    tuple(zip(layers, directions, strict=True)),
                    kernel=3 if block in set(self.masked) else 1,
                    causal=True,
                )
            )
        if self.last_masked is not None:
            masked = ((self.last_masked, self.directions[-1]),)
            result.append(
                Operation(Kind.ELU_CONV, (filters, filters), side, masked, 3, causal=True)
            )
        output = Operation(Kind.ELU_CONV, (filters, 1), side, ((last, last.own_direction()),), 1)
        return [*result, output]

    def context_pixels(self) -> set[tuple[int, int]]:
        """Return the window as offsets (rows down, columns right) that the kernels reach."""
        last = self.last_masked is not None
        return reach(decoder_kernels(self.first_kernel, len(self.masked), last))
