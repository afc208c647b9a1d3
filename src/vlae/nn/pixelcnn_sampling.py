"""Samples images from a PixelCNN, evaluating it only at the next pixels.

The features of all earlier pixels are cached. Each pixel's features are computed once, so an
image costs about one forward pass, whatever the number of steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vlae.nn.elu import elu
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.wavefront import wavefront
from vlae.nn.weightnorm import WeightNorm


class _Layer:
    """A causal convolution with its cached, zero-padded input (B, places, channels)."""

    def __init__(
        self, layer: WeightNorm, weight: Tensor, batch: int, height: int, width: int
    ) -> None:
        outputs, inputs, rows, columns = weight.shape
        half = columns // 2
        self.pitch, self.above, self.left = width + 2 * half, rows - 1, half
        self.features = weight.new_zeros(batch, (height + rows - 1) * self.pitch, inputs)
        taps = [r * self.pitch + c for r in range(rows) for c in range(columns)]
        self.taps = torch.tensor(taps, device=weight.device) - (self.above * self.pitch + half)
        self.weight = weight.permute(2, 3, 1, 0).reshape(-1, outputs)
        self.bias = layer.bias

    def places(self, pixels: Tensor) -> Tensor:
        """Return the places among the features of pixels (2, n), given as rows and columns."""
        return (pixels[0] + self.above) * self.pitch + pixels[1] + self.left

    def __call__(self, pixels: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the outputs (B, n, outputs) at `pixels`.

        x: the inputs (B, n, inputs) at these pixels; None if they are cached already.
        """
        if x is not None and len(self.taps) == 1:  # sees no other pixel: nothing to cache
            return x @ self.weight + self.bias
        places = self.places(pixels)
        if x is not None:
            self.features[:, places] = x
        window = self.features[:, (places[:, None] + self.taps).flatten()]
        return window.view(len(window), len(places), -1) @ self.weight + self.bias


class PixelByPixel:
    """Computes the logits of `pixelcnn` for images that are being drawn.

    maps: (B, maps, H, W) or None. `shape`: (B, H, W).
    """

    def __init__(
        self, pixelcnn: PixelCNN, maps: Tensor | None, shape: tuple[int, int, int]
    ) -> None:
        def new(layer: WeightNorm, direction: Tensor | None = None) -> _Layer:
            return _Layer(layer, layer.weight(direction), *shape)

        self.input = new(pixelcnn.input)
        self.blocks: list[tuple[Callable, Callable]] = []
        for block, directions in pixelcnn.blocks():
            first, second = directions or (None, None)
            self.blocks.append((new(block.first, first), new(block.second, second)))
        last = pixelcnn.last_masked
        self.last_masked = None if last is None else new(last, pixelcnn.directions[-1])
        self.output = new(pixelcnn.output)
        if maps is not None:
            rows, columns = shape[1:]
            everywhere = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
            places = self.input.places(everywhere.to(maps.device))
            self.input.features[:, places, 1:] = maps.flatten(2).transpose(1, 2)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, n) at pixels (2, n); all pixels of their windows are set."""
        h = self.input(pixels)
        for first, second in self.blocks:
            h = h + second(pixels, elu(first(pixels, elu(h))))
        if self.last_masked is not None:
            h = self.last_masked(pixels, elu(h))
        return self.output(pixels, elu(h)).squeeze(2)

    def set(self, pixels: Tensor, values: Tensor) -> None:
        """Set pixels (2, n) to the drawn values (B, n), 0 or 1."""
        self.input.features[:, self.input.places(pixels), 0] = values


def draw_pixels(pixelcnn: PixelCNN, maps: Tensor | None, uniform: Tensor) -> Tensor:
    """Sample x ~ p(x|z), bits (B, 1, H, W).

    maps: (B, maps, H, W) or None. uniform: noise in [0, 1), (B, 1, H, W). Pixels whose windows
    are complete are drawn together: 136 steps instead of 784 for 28x28 pixels and a 7x7 first
    kernel. The result equals that of raster order with the same noise.
    """
    x = torch.zeros_like(uniform)
    network = PixelByPixel(pixelcnn, maps, (len(x), *x.shape[2:]))
    for pixels in wavefront(pixelcnn.context_pixels(), x.shape[-1]):
        pixels = pixels.to(x.device)
        rows, columns = pixels
        drawn = uniform[:, 0, rows, columns] < torch.sigmoid(network.logits(pixels))
        x[:, 0, rows, columns] = drawn.to(x.dtype)
        network.set(pixels, x[:, 0, rows, columns])
    return x
