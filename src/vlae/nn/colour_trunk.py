"""Encoder and decoder trunks of the CIFAR-10 model, ResNet and DenseNet (appendix B).

Encoder: 32x32: 2 blocks, stride 2, 16x16: 2 blocks, stride 2, 8x8: 3 blocks, 1x1 convolution.

The decoder mirrors it. The ResNet has 48 feature maps at 32x32 and 96 elsewhere. The DenseNet
(Huang et al. 2017) replaces the residual blocks of a stage by one dense block of three steps. Its
concatenated features end slightly wider than the ResNet's.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlae.nn.elu import elu
from vlae.nn.resnet import ResidualBlock
from vlae.nn.weightnorm import Conv2d, ConvTranspose2d

STAGES = (2, 2, 3)  # residual blocks at 32x32, 16x16 and 8x8
DENSE_STEPS = 3


class DenseBlock(nn.Module):
    """Three steps x -> concatenate(x, conv3x3(elu(x))), each adding `growth` feature maps."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            Conv2d(inputs + i * growth, growth, 3) for i in range(DENSE_STEPS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 3 growth, H, W)."""
        for step in self.steps:
            x = torch.cat([x, step(elu(x))], 1)
        return x


def stage_channels(kind: str, width: int) -> tuple[int, int]:
    """Return the numbers of feature maps at a stage's beginning and end.

    `width` is the ResNet's number. A dense block starts with half of it and has the smallest
    growth that ends above it. Raises ValueError for an unknown kind.
    """
    if kind == "resnet":
        return width, width
    if kind == "densenet":
        return width // 2, width // 2 + DENSE_STEPS * growth(width)
    raise ValueError(f"a trunk is resnet or densenet, not {kind!r}")


def growth(width: int) -> int:
    """Return the number of feature maps that each dense step adds, for a ResNet of `width`."""
    return (width - width // 2) // DENSE_STEPS + 1


def stage(kind: str, width: int, blocks: int) -> nn.Sequential:
    """Build the blocks of one resolution; stage_channels(...) gives their channels in and out."""
    if kind == "resnet":
        return nn.Sequential(*(ResidualBlock(width, width) for _ in range(blocks)))
    return nn.Sequential(DenseBlock(width // 2, growth(width)))


class ColourEncoder(nn.Module):
    """Scaled images (B, 3, H, W) -> (B, outputs, H / 4, W / 4).

    widths: the ResNet's number of feature maps at each of the three resolutions, largest first.
    """

    def __init__(self, kind: str, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        ends = [stage_channels(kind, width) for width in widths]
        self.input = Conv2d(3, ends[0][0], 3)
        self.stages = nn.ModuleList(map(stage, [kind] * 3, widths, STAGES))
        self.down = nn.ModuleList(
            Conv2d(before[1], after[0], 3, stride=2) for before, after in pairwise(ends)
        )
        self.output = Conv2d(ends[2][1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> (B, outputs, S / 4, S / 4)."""
        h = self.stages[0](self.input(x))
        for down, blocks in zip(self.down, self.stages[1:], strict=True):
            h = blocks(down(elu(h)))
        return self.output(elu(h))


class ColourDecoder(nn.Module):
    """Latent maps (B, inputs, h, w) -> feature maps (B, channels, 4h, 4w).

    widths: as for the encoder, largest resolution first. The attribute `channels` is the number
    of output maps.
    """

    def __init__(self, kind: str, widths: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        widths = widths[::-1]
        ends = [stage_channels(kind, width) for width in widths]
        self.channels = ends[-1][1]
        self.input = Conv2d(inputs, ends[0][0], 1)
        self.stages = nn.ModuleList(map(stage, [kind] * 3, widths, STAGES[::-1]))
        self.up = nn.ModuleList(
            ConvTranspose2d(before[1], after[0], extra=1) for before, after in pairwise(ends)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Codes (B, maps, S / 4, S / 4) -> feature maps (B, channels, S, S)."""
        h = self.stages[0](self.input(z))
        for up, blocks in zip(self.up, self.stages[1:], strict=True):
            h = blocks(up(elu(h)))
        return elu(h)
