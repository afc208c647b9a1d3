"""Samples images from a LocalPixelCNN, evaluating it only at the next pixels.

The features of all earlier pixels are cached. Each pixel's features are computed once, so an
image costs about one forward pass, whatever the number of steps.

Only the vertical stream is computed ahead of the pixels to be drawn, because a pixel's window
extends to the right in the rows above it. The last layer but one is needed one column to the
right of the pixel, the layer before it two columns, and so on. The pixels seen from there lie in
the window and are already drawn.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vlae.nn.concat_elu import concat_elu
from vlae.nn.elu import elu
from vlae.nn.feature_cache import Grid, window
from vlae.nn.local_pixelcnn import (
    FIRST_HORIZONTAL,
    FIRST_VERTICAL,
    HORIZONTAL,
    VERTICAL,
    ColourHead,
    GatedBlock,
    LocalPixelCNN,
    Streams,
)
from vlae.nn.logistic_mixture import draw_component, draw_value
from vlae.nn.wavefront import wavefront
from vlae.nn.weightnorm import WeightNorm

# The number of images is padded to a multiple of this. In MKL's matrix product, the rounding of a
# row depends on its position in a block of rows; an incomplete last block rounds differently.
# Each pixel has complete blocks of rows, so every row keeps its position. A sample therefore does
# not depend on how many images or pixels are computed together.
ROUND_NUMBER = 8


def _offsets(*kernels: tuple[range, range]) -> list[tuple[int, int]]:
    """Return the offsets (rows down, columns right) that kernels see, in the order of their
    weights."""
    return [(i, j) for rows, columns in kernels for i in rows for j in columns]


def _matrix(layer: WeightNorm) -> Tensor:
    """Return a convolution's weight as (taps * inputs, outputs)."""
    weight = layer.weight()
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight))


def _part_by_part(matrix: Tensor, parts: int) -> Tensor:
    """Reorder weights (2 * parts * maps, outputs) of concat_elu(all parts) for inputs that are
    the concatenation of concat_elu(part) over the parts."""
    return matrix.view(2, parts, -1, matrix.shape[1]).transpose(0, 1).reshape(matrix.shape)


class GatedBlockAtPixels:
    """A GatedBlock evaluated at selected pixels, one matrix row per pixel.

    Inputs and outputs are concat_elu of the features, the only form in which layers use them.
    """

    def __init__(self, block: GatedBlock, beside: int) -> None:
        first, second = [_matrix(block.first)], [_matrix(block.second)]
        self.first_bias, self.second_bias = block.first.bias, block.second.bias
        if block.beside is not None:
            first.append(_part_by_part(_matrix(block.beside), beside))
            self.first_bias = self.first_bias + block.beside.bias
        if block.conditioning is not None:
            second.append(_matrix(block.conditioning))
            self.second_bias = self.second_bias + block.conditioning.bias
        self.first, self.second = torch.cat(first), torch.cat(second)

    def __call__(
        self, x: Tensor, around: Tensor, beside: list[Tensor], maps: Tensor | None
    ) -> Tensor:
        """Return the block's output (n, 2 * maps).

        x: the block's input (n, 2 * maps). around: what the first convolution sees of it,
        (n, taps * 2 * maps). beside: features of the shape of x. maps: (n, conditioning) or None.
        """
        h = torch.addmm(self.first_bias, torch.cat([around, *beside], 1), self.first)
        h = concat_elu([h])
        if maps is not None:
            h = torch.cat([h, maps], 1)
        value, gate = torch.addmm(self.second_bias, h, self.second).chunk(2, 1)
        # Recover the features from their concat_elu: its positive parts are x and -x.
        positive, negative = x.clamp(min=0).chunk(2, 1)
        # torch.sigmoid rounds the remainder elements of a vector differently; exp does not.
        return concat_elu([positive - negative + value / (1 + torch.exp(-gate))])


Features = tuple[list[Tensor], list[Tensor]]  # concat_elu of the vertical and horizontal layers


class _Step:
    """Pixels of one step: their rows (n,) in the cached features and their conditioning maps."""

    def __init__(self, rows: Tensor, maps: Tensor | None) -> None:
        self.rows = rows
        self.maps = None if maps is None else maps.index_select(0, rows)


class _Streams:
    """A Streams with a cache of the features that later steps see."""

    def __init__(self, streams: Streams, previous: int, grid: Grid) -> None:
        self.behind = streams.behind
        self.first_vertical = _matrix(streams.first_vertical)
        self.first_vertical_bias = streams.first_vertical.bias
        above, left = streams.first_horizontal
        self.first_horizontal = torch.cat([_matrix(above), _matrix(left)])
        self.first_horizontal_bias = above.bias + left.bias
        self.vertical = [GatedBlockAtPixels(block, previous) for block in streams.vertical]
        self.horizontal = [
            GatedBlockAtPixels(block, previous + int(i >= self.behind))
            for i, block in enumerate(streams.horizontal)
        ]

        def new_cache() -> Tensor:
            like = self.first_vertical
            return grid.new(2 * like.shape[1], like)

        # No other pixel sees the last layer of a stream, so it is not cached.
        self.cached_vertical = [new_cache() for _ in self.vertical[1:]]
        self.cached_horizontal = [new_cache() for _ in self.horizontal[1:]]
        self.sees_first_vertical = grid.taps(_offsets(FIRST_VERTICAL))
        self.sees_first_horizontal = grid.taps(_offsets(*FIRST_HORIZONTAL))
        self.sees_vertical = grid.taps(_offsets(VERTICAL))
        self.sees_horizontal = grid.taps(_offsets(HORIZONTAL))

    def __call__(self, image: Tensor, steps: list[_Step], previous: list[Features]) -> Features:
        """Return the features of all layers.

        image: the cached image. steps: the pixels at which each vertical layer is computed; the
        last entry holds the pixels to be drawn. previous: the features of the earlier streams.
        """
        vertical, horizontal = [], []
        for i, (block, step) in enumerate(zip(self.vertical, steps, strict=True)):
            if i:
                x = self.cached_vertical[i - 1].index_select(0, step.rows)
                around = window(self.cached_vertical[i - 1], step.rows, self.sees_vertical)
            else:
                seen = window(image, step.rows, self.sees_first_vertical)
                h = torch.addmm(self.first_vertical_bias, seen, self.first_vertical)
                x = around = concat_elu([h])
            h = block(x, around, [others[i] for others, _ in previous], step.maps)
            if i < len(self.cached_vertical):
                self.cached_vertical[i][step.rows] = h
            vertical.append(h)
        step = steps[-1]
        seen = window(image, step.rows, self.sees_first_horizontal)
        x = concat_elu([torch.addmm(self.first_horizontal_bias, seen, self.first_horizontal)])
        for i, block in enumerate(self.horizontal):
            around = x
            if i:
                around = window(self.cached_horizontal[i - 1], step.rows, self.sees_horizontal)
            beside = [others[i] for _, others in previous]
            if i >= self.behind:
                beside.append(self._vertical_here(i - self.behind, vertical, step.rows))
            x = block(x, around, beside, step.maps)
            if i < len(self.cached_horizontal):
                self.cached_horizontal[i][step.rows] = x
            horizontal.append(x)
        return vertical, horizontal

    def _vertical_here(self, layer: int, ahead: list[Tensor], rows: Tensor) -> Tensor:
        """Return a vertical layer at the pixels to be drawn; only the last layer is not cached."""
        if layer == len(self.cached_vertical):
            return ahead[layer]
        return self.cached_vertical[layer].index_select(0, rows)


class _ColourHead:
    """A ColourHead for rows that concatenate concat_elu of each block's features."""

    def __init__(self, head: ColourHead, blocks: int) -> None:
        self.red, self.red_bias = _part_by_part(_matrix(head.red), blocks), head.red.bias
        seen = len(self.red)
        self.hidden, self.later = [], []
        for layer, last in zip(head.hidden, head.later, strict=True):
            matrix = _matrix(layer)
            matrix = torch.cat([_part_by_part(matrix[:seen], blocks), matrix[seen:]])
            self.hidden.append((matrix, layer.bias))
            self.later.append((_matrix(last), last.bias))

    def draw(self, features: Tensor, uniform: Tensor) -> Tensor:
        """Draw scaled colours (n, 3) from noise (n, 4); see draw_images."""
        logits, means, log_scales = torch.addmm(self.red_bias, features, self.red).chunk(3, 1)
        component = draw_component(logits, uniform[:, 0]).unsqueeze(1)
        drawn = uniform.new_empty(len(uniform), 3)
        for colour in range(3):
            if colour:
                (hidden, hidden_bias), (later, later_bias) = (
                    layers[colour - 1] for layers in (self.hidden, self.later)
                )
                inputs = torch.cat([features, drawn[:, :colour]], 1)
                h = elu(torch.addmm(hidden_bias, inputs, hidden))
                means, log_scales = torch.addmm(later_bias, h, later).chunk(2, 1)
            mean, log_scale = (
                part.gather(1, component).squeeze(1) for part in (means, log_scales)
            )
            drawn[:, colour] = draw_value(mean, log_scale, uniform[:, 1 + colour])
        return drawn


class LocalPixelByPixel:
    """Evaluates `pixelcnn` for images (B, 3, H, W) that are being drawn.

    maps: (B, conditioning, H, W) or None. `shape`: (B, H, W).
    """

    def __init__(
        self,
        pixelcnn: LocalPixelCNN,
        maps: Tensor | None,
        shape: tuple[int, int, int],
    ) -> None:
        self.pixelcnn = pixelcnn
        self.grid = Grid(*shape, device=pixelcnn.head.red.bias.device)
        self.streams = [
            _Streams(streams, i, self.grid) for i, streams in enumerate(pixelcnn.streams)
        ]
        self.head = _ColourHead(pixelcnn.head, len(self.streams))
        # For each layer of the vertical stream: how many columns ahead it is computed.
        self.ahead = range(pixelcnn.depth.vertical - 1, -1, -1)
        self.maps = None if maps is None else self.grid.keep(maps)
        channels = (1 if pixelcnn.grayscale else 3) + 1
        self.image = self.grid.new(channels, pixelcnn.head.red.bias)

    def draw(self, pixels: Tensor, uniform: Tensor) -> Tensor:
        """Draw the scaled colours (B, 3, n) of pixels (2, n) from noise (B, 4, n).

        All pixels of their windows are already drawn. For the noise see draw_images.
        """
        steps = [
            _Step(self.grid.rows(self._pixels_ahead(pixels, ahead)), self.maps)
            for ahead in self.ahead
        ]
        done: list[Features] = []
        for streams in self.streams:
            done.append(streams(self.image, steps, done))
        features = torch.cat([horizontal[-1] for _, horizontal in done], 1)
        noise = uniform.permute(2, 0, 1).reshape(-1, 4)
        drawn = self.head.draw(features, noise)
        self.image[steps[-1].rows] = self.pixelcnn.image_seen(drawn[:, :, None, None]).flatten(1)
        return drawn.view(-1, self.grid.images, 3).permute(1, 2, 0)

    def _pixels_ahead(self, pixels: Tensor, ahead: int) -> Tensor:
        """Return the pixels (2, m) for a layer that runs `ahead` columns before `pixels` (2, n).

        Each pixel of `pixels` gives the pixel `ahead` columns to its right. The first pixel of a
        row also gives the columns before that.
        """
        rows, columns = pixels
        shifted = torch.stack([rows, columns + ahead])
        begun = rows[columns == 0]
        first = torch.arange(ahead, device=pixels.device).repeat_interleave(len(begun))
        wanted = torch.cat([shifted, torch.stack([begun.repeat(ahead), first])], 1)
        return wanted[:, wanted[1] < self.grid.width]


@torch.no_grad()
def draw_images(
    pixelcnn: LocalPixelCNN,
    maps: Tensor | None,
    uniform: Tensor,
    groups: list[Tensor] | None = None,
) -> Tensor:
    """Sample x ~ p(x|z), scaled images (B, 3, H, W).

    maps: (B, conditioning, H, W) or None. uniform: noise in [0, 1), (B, 4, H, W), one channel for
    the mixture component and one for each colour. groups: the pixels to draw together, by default
    the `wavefront` of the window; the result does not depend on them.
    """
    groups = groups or wavefront(pixelcnn.context_pixels(), uniform.shape[-1])
    images = len(uniform)
    filling = (0, 0) * 3 + (0, -images % ROUND_NUMBER)
    uniform = F.pad(uniform, filling)
    maps = None if maps is None else F.pad(maps, filling)
    x = torch.zeros_like(uniform[:, :3])
    network = LocalPixelByPixel(pixelcnn, maps, (len(x), *x.shape[2:]))
    for pixels in groups:
        pixels = pixels.to(x.device)
        rows, columns = pixels
        x[:, :, rows, columns] = network.draw(pixels, uniform[:, :, rows, columns])
    return x[:images]
