"""A LatentPixelCNN evaluated number by number, for latent maps that are still being made.

All numbers together cost about one forward pass: what a layer sees of earlier pixels is computed
once for each pixel, and each hidden unit once, when the last number that it depends on is there.
"""

import torch
from torch import Tensor

from vlae.nn.elu import elu
from vlae.nn.feature_cache import Grid, window
from vlae.nn.pixelcnn import causal_mask
from vlae.nn.weightnorm import WeightNorm


class _Layer:
    """A masked convolution, its input at earlier pixels kept: (images * places, channels)."""

    def __init__(self, layer: WeightNorm, grid: Grid) -> None:
        weight = layer.weight()  # (outputs, inputs, rows up to the pixel's, columns)
        kernel = weight.shape[3]
        half = kernel // 2
        earlier = causal_mask(kernel, own_pixel=False).nonzero().tolist()
        self.taps = grid.taps([(i - half, j - half) for i, j in earlier])
        self.earlier = torch.cat([weight[:, :, i, j].T for i, j in earlier])
        self.own = weight[:, :, half, half].T.contiguous()
        self.bias = layer.bias
        self.kept = grid.new(weight.shape[1], weight)

    def from_earlier(self, rows: Tensor) -> Tensor:
        """Return the part of its outputs (n, outputs) that comes from earlier pixels."""
        return torch.addmm(self.bias, window(self.kept, rows, self.taps), self.earlier)


class NumberByNumber:
    """The outputs of a LatentPixelCNN for latent maps (B, maps, H, W) of which some are made.

    `layers`: its convolutions, the last one the output. `ends`: hidden features that see no
    more of their own pixel than maps up to i, for each map i. `shape`: (B, H, W).
    For each group of pixels: `begin`, then for k = 0, 1, ... `outputs(k)` and `set(k, values)`,
    then `end`.
    """

    def __init__(
        self, layers: list[WeightNorm], ends: list[int], shape: tuple[int, int, int]
    ) -> None:
        self.ends = ends
        self.grid = Grid(*shape, device=layers[0].bias.device)
        self.layers = [_Layer(layer, self.grid) for layer in layers]

    def begin(self, pixels: Tensor) -> None:
        """Pixels (2, n) are next; all those of their windows have been made."""
        self.rows = self.grid.rows(pixels)
        self.before = [layer.from_earlier(self.rows) for layer in self.layers]
        self.inputs = [
            layer.kept.new_zeros(len(self.rows), layer.kept.shape[1]) for layer in self.layers
        ]

    def outputs(self, k: int) -> Tensor:
        """Return the parameters of map k, (B, n, number of outputs); call `set` for maps 0 to k -
        1 first."""
        seen, of_map = self.ends[k - 1] if k else 0, slice(k, None, len(self.ends))
        own = self.inputs[-1][:, :seen] @ self.layers[-1].own[:seen, of_map]
        outputs = self.before[-1][:, of_map] + own
        return outputs.unflatten(0, (-1, self.grid.images)).transpose(0, 1)

    def set(self, k: int, values: Tensor) -> None:
        """Map k of the pixels is known: values (B, n)."""
        self.inputs[0][:, k] = values.T.flatten()
        start, end = (self.ends[k - 1] if k else 0), self.ends[k]
        seen = k + 1
        for i, layer in enumerate(self.layers[:-1]):
            own = self.inputs[i][:, :seen] @ layer.own[:seen, start:end]
            self.inputs[i + 1][:, start:end] = elu(self.before[i][:, start:end] + own)
            seen = end

    def end(self) -> None:
        """All maps of the pixels have been set."""
        for layer, inputs in zip(self.layers, self.inputs, strict=True):
            layer.kept[self.rows] = inputs
