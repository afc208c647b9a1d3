"""The baseline: the same network in a straightforward PyTorch implementation.

It uses PyTorch's own operations one after the other, in single precision with channels first, full
k x k kernels multiplied by their masks, and `F.elu`. With the same weights it computes the same
function as `vlae.models.vlae.VLAE` (`tests/test_benchmarks.py`).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.models.vlae import VLAE
from vlae.native import network
from vlae.nn import made, pixelcnn, resnet
from vlae.nn.pixelcnn import MaskedConv2d
from vlae.nn.weightnorm import WeightNorm


class FullMaskedConv2d(WeightNorm):
    """A masked convolution that stores the full kernel."""

    def __init__(self, layer: MaskedConv2d):
        cropped = layer.mask.expand(len(layer.gain), -1, -1, -1)
        mask = _full(cropped[:1], 0)
        super().__init__(tuple(_full(cropped, 0).shape), mask=mask, direction=False)
        self.gain, self.bias = nn.Parameter(layer.gain.clone()), nn.Parameter(layer.bias.clone())
        if layer.direction is not None:
            self.direction = nn.Parameter(_full(layer.direction.detach(), 1))

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def _full(kernel: Tensor, fill: float) -> Tensor:
    """Add the rows below the centre: (O, I, k // 2 + 1, k) -> (O, I, k, k)."""
    return F.pad(kernel, (0, 0, 0, kernel.shape[-1] // 2), value=fill).contiguous()


def baseline_of(model: VLAE) -> VLAE:
    """Return a copy of the model in the baseline's form; run it in `baseline_operations`."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    if model.pixelcnn is not None:
        stack = model.pixelcnn
        stack.input = FullMaskedConv2d(stack.input)
        for block in stack.masked:
            block.first, block.second = map(FullMaskedConv2d, (block.first, block.second))
        stack.directions = nn.ParameterList(
            nn.Parameter(_full(direction.detach(), 1)) for direction in stack.directions
        )
    return model


@contextmanager
def baseline_operations() -> Iterator[None]:
    """Use PyTorch's own ELU everywhere and no C++ core."""
    activations = {**made.ACTIVATIONS, "elu": F.elu}
    with (
        patch.object(made, "ACTIVATIONS", activations),
        patch.object(pixelcnn, "elu", F.elu),
        patch.object(resnet, "elu", F.elu),
        patch.object(network, "library", lambda: None),
    ):
        yield
