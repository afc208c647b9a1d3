"""The local decoder of colour images: PixelCNN++ with a small, exact window (appendix B).

    p(x | z) = prod_i p(x_i | z, x_window(i)),      x_i: the three colours of a pixel

A window AxB is a rectangle A wide and B tall directly above the pixel, plus the ceil((A - 1) / 2)
pixels to its left. As in PixelCNN++ (Salimans et al. 2017), it is built by two streams. The
vertical stream sees the rows above; the horizontal stream also sees the pixel's own row.

Two rules make the window exact. In a gated residual block only the first convolution sees
neighbours. Vertical features enter the horizontal stream only at depths where they stay inside
the window.

The network is shallow and very wide: it has `blocks` parallel pairs of streams. Each pair runs
from the image to the output and is conditioned on the earlier pairs' features of equal depth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.nn.concat_elu import concat_elu, gated
from vlae.nn.containers import ModuleList
from vlae.nn.elu import elu
from vlae.nn.logistic_mixture import mixture_log_likelihood
from vlae.nn.weightnorm import Conv2d, WeightNorm

GREY = (0.299, 0.587, 0.114)  # luma weights of red, green and blue, for a grayscale context


@dataclass(frozen=True)
class Depth:
    """Number of convolutions in each stream that see neighbours, the first one included."""

    vertical: int
    horizontal: int


WINDOWS = {"4x2": Depth(1, 2), "5x3": Depth(2, 2), "7x4": Depth(3, 3)}

# Offsets (rows down, columns right) that each kind of convolution sees. The first layers exclude
# the pixel itself; the later ones include it.
FIRST_VERTICAL = (range(-2, 0), range(-1, 2))
FIRST_HORIZONTAL = ((range(-1, 0), range(-1, 2)), (range(-1, 1), range(-1, 0)))
VERTICAL = (range(-1, 1), range(-1, 2))
HORIZONTAL = (range(-1, 1), range(-1, 1))


class OffsetConv2d(WeightNorm):
    """Padded (B, in, H', W') -> (B, out, H, W).

    Output pixel (r, c) sees inputs (r + i, c + j) for i in `rows` and j in `columns`. The caller
    pads the input with `border` zeros (left, right, top, bottom). An entry is negative where the
    kernel does not reach the last rows or columns.
    """

    def __init__(self, inputs: int, outputs: int, rows: range, columns: range) -> None:
        super().__init__((outputs, inputs, len(rows), len(columns)))
        self.border = (-columns[0], columns[-1], -rows[0], rows[-1])

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Padded inputs (B, in, H', W') -> (B, out, H, W)."""
        return F.conv2d(x, weight, bias)


class PointwiseConv2d(WeightNorm):
    """1x1 convolution of concatenated inputs, each (B, C_i, H, W) -> (B, out, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((outputs, inputs, 1, 1))

    def apply_weight(self, x: list[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
        """Inputs (B, C_i, H, W) -> (B, out, H, W)."""
        # One convolution per input avoids copying the inputs into one tensor.
        weights = weight.split([part.shape[1] for part in x], 1)
        y = F.conv2d(x[0], weights[0], bias)
        for part, w in zip(x[1:], weights[1:], strict=True):
            y = y + F.conv2d(part, w)
        return y


class GatedBlock(nn.Module):
    """x + a sigmoid(b), a gated residual block (PixelCNN++).

    a and b are computed from x by `first`, which may see neighbours, and by 1x1 convolutions.
    `beside` channels of other features of the same pixel enter after `first`. The `conditioning`
    maps enter before the gate.
    """

    def __init__(self, first: OffsetConv2d, maps: int, beside: int, conditioning: int) -> None:
        super().__init__()
        self.first = first
        self.beside = Conv2d(2 * beside, maps, 1) if beside else None
        self.second = Conv2d(2 * maps, 2 * maps, 1)
        self.conditioning = Conv2d(conditioning, 2 * maps, 1) if conditioning else None

    def forward(self, x: Tensor, beside: list[Tensor], maps: Tensor | None) -> Tensor:
        """x and the features beside it (B, maps, H, W), maps (B, conditioning, H, W) or None
        -> (B, maps, H, W)."""
        h = self.first(concat_elu([x], border=self.first.border))
        plus = None if self.beside is None else self.beside(concat_elu(beside))
        h = self.second(concat_elu([h], plus))
        return gated(x, h, None if self.conditioning is None else self.conditioning(maps))


Features = tuple[list[Tensor], list[Tensor]]  # outputs of the vertical and horizontal layers


class Streams(nn.Module):
    """A vertical and a horizontal stream of `maps` feature maps, from image to output.

    `previous`: the number of earlier pairs of streams that condition this pair.
    """

    def __init__(
        self, inputs: int, maps: int, depth: Depth, previous: int, conditioning: int
    ) -> None:
        super().__init__()
        self.first_vertical = OffsetConv2d(inputs, maps, *FIRST_VERTICAL)
        self.first_horizontal = ModuleList(
            OffsetConv2d(inputs, maps, *offsets) for offsets in FIRST_HORIZONTAL
        )
        # Vertical layer j enters horizontal layer j + behind, so both streams end together.
        self.behind = depth.horizontal - depth.vertical

        def block(layer: int, offsets: tuple[range, range], entering: int) -> GatedBlock:
            # The first block sees no neighbours: the first convolution before it has seen them.
            seen = offsets if layer else (range(1), range(1))
            first = OffsetConv2d(2 * maps, maps, *seen)
            return GatedBlock(first, maps, (previous + entering) * maps, conditioning)

        self.vertical = ModuleList(block(i, VERTICAL, 0) for i in range(depth.vertical))
        self.horizontal = ModuleList(
            block(i, HORIZONTAL, int(i >= self.behind)) for i in range(depth.horizontal)
        )

    def forward(self, image: Tensor, previous: list[Features], maps: Tensor | None) -> Features:
        """Compute the features (B, maps, H, W) of all layers.

        image: (B, inputs, H, W), as from image_seen. previous: the features of the earlier pairs.
        maps: (B, conditioning, H, W) or None.
        """
        vertical, horizontal = [], []
        h, *horizontals = (
            layer(F.pad(image, layer.border))
            for layer in (self.first_vertical, *self.first_horizontal)
        )
        for i, block in enumerate(self.vertical):
            h = block(h, [others[i] for others, _ in previous], maps)
            vertical.append(h)
        h = sum(horizontals)
        for i, block in enumerate(self.horizontal):
            beside = [others[i] for _, others in previous]
            if i >= self.behind:
                beside.append(vertical[i - self.behind])
            h = block(h, beside, maps)
            horizontal.append(h)
        return vertical, horizontal


class ColourHead(nn.Module):
    """Mixture parameters of a pixel, one colour after the other.

    The inputs are concat_elu of the features and the pixel's earlier colours. All layers are 1x1
    convolutions, so the window does not grow.
    """

    def __init__(self, features: int, hidden: int, mixtures: int) -> None:
        super().__init__()
        self.mixtures = mixtures
        self.red = Conv2d(2 * features, 3 * mixtures, 1)
        self.hidden = ModuleList(
            PointwiseConv2d(2 * features + before, hidden) for before in (1, 2)
        )
        self.later = ModuleList(Conv2d(hidden, 2 * mixtures, 1) for _ in range(2))

    def first(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mixture logits and red's means and log-scales, each (B, K, H, W)."""
        return self.red(features).chunk(3, 1)

    def next(self, features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log-scales (B, K, H, W) of the colour after `before` (B, 1 or 2, H, W).

        One earlier colour (red) gives green; two (red and green) give blue.
        """
        which = before.shape[1] - 1
        h = self.hidden[which]([features, before.to(features.dtype)])
        return self.later[which](elu(h)).chunk(2, 1)


class LocalPixelCNN(nn.Module):
    """log p(x|z) of colour images; vlae.nn.local_pixelcnn_sampling samples from it.

    window: a key of WINDOWS. grayscale: the network sees only the luma of the window's pixels;
    a colour is still conditioned on the earlier colours of its own pixel. conditioning: number of
    maps computed from z, 0 for none.

    >>> decoder = LocalPixelCNN("4x2", False, blocks=1, maps=8, conditioning=0, mixtures=2)
    >>> sorted(decoder.context_pixels())[:5]  # (rows down, columns right)
    [(-2, -2), (-2, -1), (-2, 0), (-2, 1), (-1, -2)]
    >>> decoder.log_likelihood(torch.zeros(2, 3, 32, 32), None).shape  # nats
    torch.Size([2])
    """

    def __init__(
        self,
        window: str,
        grayscale: bool,
        blocks: int,
        maps: int,
        conditioning: int,
        mixtures: int,
    ) -> None:
        super().__init__()
        self.depth, self.grayscale = WINDOWS[window], grayscale
        inputs = (1 if grayscale else 3) + 1
        self.streams = ModuleList(
            Streams(inputs, maps, self.depth, i, conditioning) for i in range(blocks)
        )
        self.head = ColourHead(blocks * maps, maps, mixtures)

    def image_seen(self, x: Tensor) -> Tensor:
        """Return the streams' input for scaled images x (B, 3, H, W).

        Colours, or their luma where `grayscale`, and a channel of ones: (B, 4 or 2, H, W).
        """
        if self.grayscale:
            # Python floats: a tensor of weights would be copied to the GPU at every step.
            x = sum(share * colour for share, colour in zip(GREY, x.split(1, 1), strict=True))
        # The channel of ones distinguishes image values of 0 from the zero padding.
        return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    def features(self, x: Tensor, maps: Tensor | None) -> Tensor:
        """Return concat_elu of the features of each pixel's window.

        Scaled images x (B, 3, H, W) in [-1, 1] and maps (B, conditioning, H, W) or None
        -> (B, 2 * blocks * maps, H, W).
        """
        image = self.image_seen(x)
        done: list[Features] = []
        for streams in self.streams:
            done.append(streams(image, done, maps))
        return concat_elu([horizontal[-1] for _, horizontal in done])

    def log_likelihood(self, x: Tensor, maps: Tensor | None) -> Tensor:
        """Return log p(x|z), nats, summed over the image: x (B, 3, H, W) in [-1, 1] -> (B,).

        maps: (B, conditioning, H, W) or None.
        """
        features = self.features(x, maps)
        logits, *red = self.head.first(features)
        green, blue = self.head.next(features, x[:, :1]), self.head.next(features, x[:, :2])
        means, log_scales = (
            torch.stack(colours, 1) for colours in zip(red, green, blue, strict=True)
        )
        return mixture_log_likelihood(x, logits, means, log_scales).sum((1, 2))

    def context_pixels(self) -> set[tuple[int, int]]:
        """Return the window as offsets (rows down, columns right) that the kernels reach."""
        vertical = [_reach({(0, 0)}, FIRST_VERTICAL)]
        for _ in range(self.depth.vertical - 1):
            vertical.append(_reach(vertical[-1], VERTICAL))
        horizontal = set().union(*(_reach({(0, 0)}, offsets) for offsets in FIRST_HORIZONTAL))
        behind = self.depth.horizontal - self.depth.vertical
        for i in range(self.depth.horizontal):
            if i:
                horizontal = _reach(horizontal, HORIZONTAL)
            if i >= behind:
                horizontal = horizontal | vertical[i - behind]
        return horizontal


def _reach(seen: set[tuple[int, int]], offsets: tuple[range, range]) -> set[tuple[int, int]]:
    """Return the receptive field of a convolution over features with receptive field `seen`."""
    rows, columns = offsets
    return {(r + i, c + j) for r, c in seen for i in rows for j in columns}
