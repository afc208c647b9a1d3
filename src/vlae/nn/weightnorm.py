"""Weight-normalised layers with data-dependent initialisation (Salimans & Kingma 2016).

A layer's weight is w = g v / ||v||, with one norm per output unit. An optional 0/1 mask
multiplies v first. Initialisation sends one batch through the network. In the order of the
forward pass, it sets g and b of each layer so that its pre-activations have mean 0 and variance 1
over that batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.native.network import foldable, folded

NORM_FLOOR = 1e-12  # added to the squared norm, which is 0 if all inputs of a unit are masked


class WeightNorm(nn.Module):
    """Base class of weight-normalised layers: direction v, gain g, bias b, and initialisation.

    `unit_dim` is the dimension of v that indexes output units. With `direction=False` the layer
    owns no v and its caller passes one. Layers can then share v and keep their own gain and bias.
    """

    direction: Tensor | None
    gain: Tensor
    bias: Tensor
    mask: Tensor | None

    def __init__(
        self,
        shape: tuple[int, ...],
        unit_dim: int = 0,
        mask: Tensor | None = None,
        direction: bool = True,
    ) -> None:
        super().__init__()
        self.unit_dim = unit_dim
        self.direction = nn.Parameter(new_direction(shape)) if direction else None
        self.gain = nn.Parameter(torch.ones(shape[unit_dim]))
        self.bias = nn.Parameter(torch.zeros(shape[unit_dim]))
        self.register_buffer("mask", mask, persistent=False)
        self.initialising = False
        self.frozen: Tensor | None = None  # a weight that takes the place of g v / ||v||

    def weight(self, direction: Tensor | None = None) -> Tensor:
        """Return g v / ||v||, with the shape of v, or the frozen weight."""
        if self.frozen is not None:
            return self.frozen
        if direction is None and foldable(self):
            return folded(self)
        v = self.own_direction() if direction is None else direction
        if self.mask is not None:
            v = v * self.mask
        others = [d for d in range(v.dim()) if d != self.unit_dim]
        norm = v.square().sum(others, keepdim=True).add(NORM_FLOOR).rsqrt()
        shape = [1] * v.dim()
        shape[self.unit_dim] = -1
        return v * (norm * self.gain.view(shape))

    def own_direction(self) -> Tensor:
        """Return v. Raises ValueError if the layer owns none."""
        if self.direction is None:
            raise ValueError("this layer owns no direction; pass the shared one to forward()")
        return self.direction

    def apply_weight(self, x: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the layer with this weight and bias; x is whatever input the layer takes."""
        raise NotImplementedError

    def forward(self, x: Any, direction: Tensor | None = None) -> Tensor:
        """Return the layer's output; `direction` is v for a layer that owns none."""
        if self.initialising:
            self._initialise(x, direction)
        return self.apply_weight(x, self.weight(direction), self.bias)

    @torch.no_grad()
    def _initialise(self, x: Any, direction: Tensor | None) -> None:
        self.gain.fill_(1)
        y = self.apply_weight(x, self.weight(direction), None).to(self.gain.dtype)
        units = [d for d in range(y.dim()) if d != 1]
        mean, variance = y.mean(units), y.var(units, correction=0)
        # A unit with only masked or constant inputs has no variance to normalise.
        gain = torch.where(variance > 1e-10, variance.clamp(min=1e-10).rsqrt(), 1.0)
        self.gain.copy_(gain)
        self.bias.copy_(-mean * gain)


class Linear(WeightNorm):
    """(B, in) -> (B, out)."""

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None = None) -> None:
        super().__init__((outputs, inputs), mask=mask)

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, in) -> (B, out)."""
        return F.linear(x, weight, bias)


class Conv2d(WeightNorm):
    """(B, in, H, W) -> (B, out, H / stride, W / stride), with zero padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__((outputs, inputs, kernel, kernel))
        self.stride, self.padding = stride, kernel // 2

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class ConvTranspose2d(WeightNorm):
    """3x3, stride 2: (B, in, H, W) -> (B, out, 2H - 1 + extra, 2W - 1 + extra)."""

    def __init__(self, inputs: int, outputs: int, extra: int) -> None:
        super().__init__((inputs, outputs, 3, 3), unit_dim=1)
        self.extra = extra

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H - 1 + extra, 2W - 1 + extra)."""
        return F.conv_transpose2d(x, weight, bias, 2, 1, self.extra)


def new_direction(shape: tuple[int, ...]) -> Tensor:
    """Return v ~ N(0, 0.05^2) of this shape, as in Salimans & Kingma 2016."""
    return torch.randn(shape) * 0.05


@contextmanager
def data_dependent_initialisation(model: nn.Module) -> Iterator[None]:
    """Make forward passes inside the context initialise every weight-normalised layer they use."""
    layers = [m for m in model.modules() if isinstance(m, WeightNorm)]
    for layer in layers:
        layer.initialising = True
    try:
        with torch.no_grad():
            yield
    finally:
        for layer in layers:
            layer.initialising = False
