"""Images drawn from a LocalPixelCNN, evaluated at the pixels that are next, its features at all
earlier ones kept.

Drawing an image needs every pixel's features once: together they cost about one forward pass,
however many steps it takes. Only the vertical stream is computed ahead of the pixels: a pixel's
window reaches to the right in the rows above it, and so do the layers that gather it. The layer
before the last is needed one column to the right of the pixel, that before it two columns, and
so on; what they see there lies in the window, and has been drawn.
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

# Images are filled up to a multiple of this. A matrix product of MKL's rounds a row according to
# its place in a block of rows, and the last rows otherwise if they are no whole block. Rows that
# come pixel after pixel, whole blocks for each, keep their places: a sample then does not depend
# on how many images or pixels are computed together.
ROUND_NUMBER = 8


def _offsets(*kernels: tuple[range, range]) -> list[tuple[int, int]]:
    """The pixels (rows down, columns right) that kernels see, in the order of their weights."""
    return [(i, j) for rows, columns in kernels for i in rows for j in columns]


def _matrix(layer: WeightNorm) -> Tensor:
    """The weight of a convolution as (taps * inputs, outputs)."""
    weight = layer.weight()
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight))


def _part_by_part(matrix: Tensor, parts: int) -> Tensor:
    """The weights (2 * parts * maps, outputs) of concat_elu of several features side by side, as
    those of the concat_elu of each of them, one after the other."""
    return matrix.view(2, parts, -1, matrix.shape[1]).transpose(0, 1).reshape(matrix.shape)


class GatedBlockAtPixels:
    """A GatedBlock at some pixels, a row of a matrix for each; features are given and returned
    as their concat_elu, which is all that any layer sees of them."""

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
        """x, the block's input, (n, 2 * maps); `around`, what its first convolution sees of it,
        (n, taps * 2 * maps); `beside`, each as x; conditioning maps (n, conditioning)."""
        h = torch.addmm(self.first_bias, torch.cat([around, *beside], 1), self.first)
        h = concat_elu([h])
        if maps is not None:
            h = torch.cat([h, maps], 1)
        value, gate = torch.addmm(self.second_bias, h, self.second).chunk(2, 1)
        # ELU of x and of -x have x and -x where these are positive.
        positive, negative = x.clamp(min=0).chunk(2, 1)
        # The vectorised sigmoid rounds otherwise than that of a vector's last, single numbers;
        # exp does not.
        return concat_elu([positive - negative + value / (1 + torch.exp(-gate))])


Features = tuple[list[Tensor], list[Tensor]]  # of the vertical and horizontal layers, concat_elu


class _Step:
    """Some pixels of a step: `rows` (n,) of the kept features, conditioning maps (n, ...)."""

    def __init__(self, rows: Tensor, maps: Tensor | None) -> None:
        self.rows = rows
        self.maps = None if maps is None else maps.index_select(0, rows)


class _Streams:
    """Streams, the features that later steps see kept."""

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

        def kept() -> Tensor:
            like = self.first_vertical
            return grid.new(2 * like.shape[1], like)

        # Of each stream's last layer nothing is seen from other pixels.
        self.kept_vertical = [kept() for _ in self.vertical[1:]]
        self.kept_horizontal = [kept() for _ in self.horizontal[1:]]
        self.sees_first_vertical = grid.taps(_offsets(FIRST_VERTICAL))
        self.sees_first_horizontal = grid.taps(_offsets(*FIRST_HORIZONTAL))
        self.sees_vertical = grid.taps(_offsets(VERTICAL))
        self.sees_horizontal = grid.taps(_offsets(HORIZONTAL))

    def __call__(self, image: Tensor, steps: list[_Step], previous: list[Features]) -> Features:
        """image: kept. steps: the pixels at which each vertical layer is computed; those of the
        last one are the pixels to be drawn."""
        vertical, horizontal = [], []
        for i, (block, step) in enumerate(zip(self.vertical, steps, strict=True)):
            if i:
                x = self.kept_vertical[i - 1].index_select(0, step.rows)
                around = window(self.kept_vertical[i - 1], step.rows, self.sees_vertical)
            else:
                seen = window(image, step.rows, self.sees_first_vertical)
                h = torch.addmm(self.first_vertical_bias, seen, self.first_vertical)
                x = around = concat_elu([h])
            h = block(x, around, [others[i] for others, _ in previous], step.maps)
            if i < len(self.kept_vertical):
                self.kept_vertical[i][step.rows] = h
            vertical.append(h)
        step = steps[-1]
        seen = window(image, step.rows, self.sees_first_horizontal)
        x = concat_elu([torch.addmm(self.first_horizontal_bias, seen, self.first_horizontal)])
        for i, block in enumerate(self.horizontal):
            around = x
            if i:
                around = window(self.kept_horizontal[i - 1], step.rows, self.sees_horizontal)
            beside = [others[i] for _, others in previous]
            if i >= self.behind:
                beside.append(self._vertical_here(i - self.behind, vertical, step.rows))
            x = block(x, around, beside, step.maps)
            if i < len(self.kept_horizontal):
                self.kept_horizontal[i][step.rows] = x
            horizontal.append(x)
        return vertical, horizontal

    def _vertical_here(self, layer: int, ahead: list[Tensor], rows: Tensor) -> Tensor:
        """Compute a vertical layer at the pixels to be drawn; all but the last are kept there."""
        if layer == len(self.kept_vertical):
            return ahead[layer]
        return self.kept_vertical[layer].index_select(0, rows)


class _ColourHead:
    """A ColourHead over rows: concat_elu of the features of each block, one after the other."""

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
        """The colours (n, 3), scaled, from noise (n, 4): see draw_images."""
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
    """`pixelcnn` for images (B, 3, H, W) that are being drawn.

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
        # Beside each layer of the vertical stream, how far ahead of the pixels it is computed.
        self.ahead = range(pixelcnn.depth.vertical - 1, -1, -1)
        self.maps = None if maps is None else self.grid.keep(maps)
        channels = (1 if pixelcnn.grayscale else 3) + 1
        self.image = self.grid.new(channels, pixelcnn.head.red.bias)

    def draw(self, pixels: Tensor, uniform: Tensor) -> Tensor:
        """The colours (B, 3, n), scaled, of pixels (2, n), all pixels of whose windows have been
        drawn, from noise (B, 4, n): see draw_images."""
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
        """The pixels (2, m) where a layer is computed that is needed `ahead` columns to the right
        of `pixels` (2, n): one for each of these, and a row's first columns with its first."""
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
    """x ~ p(x|z), scaled (B, 3, H, W), from maps (B, conditioning, H, W) or None and noise
    in [0, 1), (B, 4, H, W): for the mixture's component and for each colour.

    `groups`: pixels that are drawn together, as of `wavefront`, by default that of the
    window; the result does not depend on them.
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
