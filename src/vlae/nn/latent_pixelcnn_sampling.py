"""Evaluates a LatentPixelCNN element by element while latent maps are being sampled.

All elements together cost about one forward pass. Each layer's contribution from earlier pixels
is computed once per pixel. Each hidden unit is computed once, as soon as all its inputs are known.
"""

import torch
from torch import Tensor

from vlae.nn.elu import elu
from vlae.nn.feature_cache import Grid, window
from vlae.nn.pixelcnn import causal_mask
from vlae.nn.weightnorm import WeightNorm


class _Layer:
    """A masked convolution and its cached input at earlier pixels (images * places, channels)."""

    def __init__(self, layer: WeightNorm, grid: Grid) -> None:
        weight = layer.weight()  # (outputs, inputs, rows up to the pixel's, columns)
        kernel = weight.shape[3]
        half = kernel // 2
        earlier = causal_mask(kernel, own_pixel=False).nonzero().tolist()
        self.taps = grid.taps([(i - half, j - half) for i, j in earlier])
        self.earlier = torch.cat([weight[:, :, i, j].T for i, j in earlier])
        self.own = weight[:, :, half, half].T.contiguous()
        self.bias = layer.bias
        self.cached = grid.new(weight.shape[1], weight)

    def from_earlier(self, rows: Tensor) -> Tensor:
        """Return the earlier pixels' contribution to the outputs, bias included: (n, outputs)."""
        return torch.addmm(self.bias, window(self.cached, rows, self.taps), self.earlier)


class NumberByNumber:
    """The outputs of a LatentPixelCNN for latent maps (B, maps, H, W) that are partly sampled.

    `layers`: its convolutions, the output layer last. `ends`: for each map i, the number of
    hidden features that see only maps 0 to i of their own pixel. `shape`: (B, H, W).
    For each group of pixels call `begin`, then `outputs(k)` and `set(k, values)` for
    k = 0, 1, ..., then `end`.
    """

    def __init__(
        self, layers: list[WeightNorm], ends: list[int], shape: tuple[int, int, int]
    ) -> None:
        self.ends = ends
        self.grid = Grid(*shape, device=layers[0].bias.device)
        self.layers = [_Layer(layer, self.grid) for layer in layers]

    def begin(self, pixels: Tensor) -> None:
        """Start pixels (2, n); all pixels of their receptive fields are known."""
        self.rows = self.grid.rows(pixels)
        self.before = [layer.from_earlier(self.rows) for layer in self.layers]
        self.inputs = [
            layer.cached.new_zeros(len(self.rows), layer.cached.shape[1]) for layer in self.layers
        ]

    def outputs(self, k: int) -> Tensor:
        """Return the parameters of map k, (B, n, number of outputs).

        Call `set` for maps 0 to k - 1 first.
        """
        seen, of_map = self.ends[k - 1] if k else 0, slice(k, None, len(self.ends))
        own = self.inputs[-1][:, :seen] @ self.layers[-1].own[:seen, of_map]
        outputs = self.before[-1][:, of_map] + own
        return outputs.unflatten(0, (-1, self.grid.images)).transpose(0, 1)

    def set(self, k: int, values: Tensor) -> None:
        """Set map k of the pixels to values (B, n)."""
        self.inputs[0][:, k] = values.T.flatten()
        start, end = (self.ends[k - 1] if k else 0), self.ends[k]
        seen = k + 1
        for i, layer in enumerate(self.layers[:-1]):
            own = self.inputs[i][:, :seen] @ layer.own[:seen, start:end]
            self.inputs[i + 1][:, start:end] = elu(self.before[i][:, start:end] + own)
            seen = end

    def end(self) -> None:
        """Finish the pixels, after all their maps have been set: cache their features."""
        for layer, inputs in zip(self.layers, self.inputs, strict=True):
            layer.cached[self.rows] = inputs
