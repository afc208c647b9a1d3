"""Networks evaluated with the same result on every machine.

A decoder has to repeat the encoder's arithmetic to the last bit, on another processor and with
another number of threads. Floating-point sums depend on their order. Here they do not:

- values are multiples of VALUE_UNIT, weights are multiples of WEIGHT_UNIT, both held as float64;
- a product of the two is then a multiple of 2^-28, and no sum of a layer's products reaches
  2^53 of these units (`freeze` checks that), so every partial sum is exact, whatever its order;
- after each product, values are rounded to VALUE_UNIT, and all other operations are exact;
- exp is a table (vlae.coding.tables).

`FixedPoint` applies these rules to the ordinary PyTorch modules, and refuses an operation that it
does not know.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vlae.coding.tables import VALUE_BITS, exp_of_non_positive
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.weightnorm import NORM_FLOOR, WeightNorm

WEIGHT_BITS = 16
VALUE_UNIT, WEIGHT_UNIT = 2.0**-VALUE_BITS, 2.0**-WEIGHT_BITS
LARGEST = 2.0**12  # values are clamped to -LARGEST..LARGEST
LARGEST_SUM = 2.0**53 * VALUE_UNIT * WEIGHT_UNIT / LARGEST  # of the absolute weights of a unit

Network = TypeVar("Network", bound=nn.Module)
T = torch.Tensor
PRODUCTS = {F.linear, F.conv2d, F.conv_transpose2d, T.matmul, T.__matmul__}
SCALINGS = {T.mul, T.__mul__, T.__rmul__}
# Sums and differences of multiples of a unit, choices among values, and changes of shape.
EXACT = {
    *(T.__add__, T.__radd__, T.__sub__, T.sub, T.sub_, torch.sub, torch.maximum, torch.relu),
    *(T.clamp, T.flip, T.chunk, T.expand, T.view, T.reshape, T.permute, T.flatten, T.transpose),
    *(T.squeeze, T.unsqueeze, T.contiguous, T.dim, T.size, T.numel, T.__len__, T.to, torch.cat),
    *(T.__getitem__, T.__setitem__, T.new_zeros, T.float, F.pad, torch.zeros_like),
    *(getattr(T, name).__get__ for name in ("shape", "device", "dtype", "is_cuda", "T")),
    *(getattr(T, name).__get__ for name in ("requires_grad", "layout")),
    torch._C._set_grad_enabled,
}


def is_floating(argument: object) -> bool:
    """True for floating-point tensors; arithmetic on others, indices for example, is exact."""
    if isinstance(argument, (list, tuple)):
        return any(map(is_floating, argument))
    return isinstance(argument, Tensor) and argument.is_floating_point()


def rounded(values: Tensor) -> Tensor:
    """Round to multiples of VALUE_UNIT, half up, and clamp to -LARGEST..LARGEST."""
    return values.mul(1 / VALUE_UNIT).add(0.5).floor_().mul_(VALUE_UNIT).clamp_(-LARGEST, LARGEST)


class FixedPoint(TorchFunctionMode):
    """A context in which networks compute exactly; their layers are `freeze`d before.

    Raises NotImplementedError for an operation that has no rule here.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Apply one operation by its rule."""
        kwargs = kwargs or {}
        if func in EXACT or not is_floating(args):
            return func(*args, **kwargs)
        if func in PRODUCTS or func in SCALINGS:
            return rounded(func(*args, **kwargs))
        if func is T.add:
            (x, y), factor = args, kwargs.get("alpha", 1)
            return x + (y if factor == 1 else rounded(y * factor))
        if func is T.exp_:
            return exp_of_non_positive(args[0])
        raise NotImplementedError(f"{getattr(func, '__name__', func)} has no exact form")


@torch.no_grad()
def freeze(model: Network) -> Network:
    """Turn a model's weights and biases into fixed-point numbers, in place, in float64.

    Raises OverflowError if the weights of a unit are so large that sums may not be exact.
    """
    model.double()
    shared: dict[WeightNorm, Tensor] = {}
    for module in model.modules():
        if isinstance(module, PixelCNN):
            shared |= shared_directions(module)
    for layer in model.modules():
        if isinstance(layer, WeightNorm):
            direction = shared.get(layer)
            layer.frozen = fixed_weight(layer, layer.direction if direction is None else direction)
            layer.bias.copy_(rounded(layer.bias))
    return model


def shared_directions(pixelcnn: PixelCNN) -> dict[WeightNorm, Tensor]:
    """Return the direction tensor of each layer that owns none."""
    result: dict[WeightNorm, Tensor] = {}
    for block, directions in pixelcnn.blocks():
        if directions:
            result[block.first], result[block.second] = directions
    if pixelcnn.last_masked is not None:
        result[pixelcnn.last_masked] = pixelcnn.directions[-1]
    return result


def fixed_weight(layer: WeightNorm, direction: Tensor | None) -> Tensor:
    """Return g v / ||v|| in multiples of WEIGHT_UNIT.

    v has single precision, so its squares are exact in float64, and fsum rounds their sum once:
    this, too, is the same on every machine.
    """
    if direction is None:
        raise ValueError("a layer without a direction")
    v = direction if layer.mask is None else direction * layer.mask
    units = v.movedim(layer.unit_dim, 0).flatten(1)
    factors = [
        gain / math.sqrt(math.fsum(row) + NORM_FLOOR)
        for row, gain in zip(units.square().tolist(), layer.gain.tolist(), strict=True)
    ]
    shape = [1] * v.dim()
    shape[layer.unit_dim] = -1
    weight = v * torch.tensor(factors, dtype=torch.float64).view(shape)
    weight = (weight / WEIGHT_UNIT).add(0.5).floor() * WEIGHT_UNIT
    if weight.movedim(layer.unit_dim, 0).flatten(1).abs().sum(1).max() > LARGEST_SUM:
        raise OverflowError("the weights of a layer are too large for exact sums")
    return weight.contiguous()
