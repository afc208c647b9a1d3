"""Runs a stack of convolutions in the C++ core, as one autograd operation.

A module that the core can replace lists its `operations`. `core_of(module, x)` then returns the
core's counterpart, which uses the module's own parameters. It returns None where PyTorch does the
work: on a GPU, in a precision other than that of the core's mode (`library.mode`), outside of
`vlae.hardware.autocast`, and where the core is not available (`library.unavailable_reason`).
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlae.hardware import forward_precision
from vlae.native.library import library, loaded, mode
from vlae.native.structures import OpRow, WeightEntry, array_of

WIDEST = 9  # largest kernel: the rows of a plane end in only four zeros (planes.h)


class Kind(IntEnum):
    """The effect of an operation on its input x (network.h)."""

    CONV = 0  # conv(x)
    ELU_CONV = 1  # conv(elu(x))
    ELU = 2
    BLOCK = 3  # x + scale conv(elu(conv(elu(x))))
    DOWN = 4  # conv(x) + scale conv(elu(conv(elu(x)))), the convolutions of x with stride 2
    UP = 5  # like DOWN, with transposed convolutions


class Layer(Protocol):
    """The attributes of a weight-normalised layer that the core reads (vlae.nn.weightnorm)."""

    unit_dim: int
    direction: Tensor | None
    gain: Tensor
    bias: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Operation:
    """An operation of a network.

    channels, side: number of channels and image side in pixels, each before and after. layers:
    the weight-normalised layers in order of use ([shortcut,] first, second), each with its
    direction tensor.
    """

    kind: Kind
    channels: tuple[int, int]
    side: tuple[int, int]
    layers: tuple[tuple[Layer, Tensor], ...] = ()
    kernel: int = 3
    causal: bool = False  # if true, the weight has only the taps in the pixel's row and above
    scale: float = 1.0

    def row(self) -> OpRow:
        """Return the operation as a structure of the core."""
        return OpRow(
            *(self.kind, *self.channels, *self.side),
            *(self.kernel, self.causal, round(1000 * self.scale)),
        )


def active(x: Tensor) -> bool:
    """Return True if the core computes with x: on the CPU, in its precision, if available."""
    return (
        x.device.type == "cpu"
        and x.dtype != torch.float64
        and forward_precision() == mode().precision
        and library() is not None
    )


class Expressible(Protocol):
    """A module that the core can replace, wholly or in part."""

    def operations(self) -> list[Operation]:
        """Describe the part of the module that the core computes."""
        ...


_cores: weakref.WeakKeyDictionary[Expressible, "Core | None"] = weakref.WeakKeyDictionary()


def core_of(module: Expressible, x: Tensor) -> "Core | None":
    """Return the core's counterpart of `module`, or None if the core does not compute with x."""
    if not active(x):
        return None
    if module not in _cores:
        operations = module.operations()
        possible = all(operation.kernel <= WIDEST for operation in operations)
        _cores[module] = Core(operations) if possible else None
    return _cores[module]


class Core:
    """A stack of operations on float images (B, side, side, channels)."""

    def __init__(self, operations: list[Operation]) -> None:
        rows = array_of([operation.row() for operation in operations])
        self.layers = [layer for operation in operations for layer in operation.layers]
        self.output = (*[operations[-1].side[1]] * 2, operations[-1].channels[1])
        self.library = loaded()
        self.handle = self.library.vlae_network(rows, len(operations))
        self.parameters = self.library.vlae_parameters(self.handle)
        weakref.finalize(self, self.library.vlae_release, self.handle)
        # For autograd, a direction shared by several layers is one tensor.
        directions = {id(direction): direction for _, direction in self.layers}
        self.place = {key: i for i, key in enumerate(directions)}
        self.tensors = [
            *directions.values(),
            *(layer.gain for layer, _ in self.layers),
            *(layer.bias for layer, _ in self.layers),
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, side, side, channels) -> float32 output of the last operation, same layout."""
        return _Stack.apply(self, torch.is_grad_enabled(), x.float().contiguous(), *self.tensors)

    def log_likelihood(self, x: Tensor, target: Tensor, weighted: bool = False) -> Tensor:
        """Return log p(target | x), nats (B,); the stack's single output channel holds the logits.

        x: (B, side, side, channels). target: (B, side, side) of 0/1. weighted: the gradients that
        flow back will differ between the images.
        """
        return _LogLikelihood.apply(
            self,
            torch.is_grad_enabled() and not weighted,
            x.float().contiguous(),
            target.float().contiguous(),
            *self.tensors,
        )

    def weights(self) -> Tensor:
        """Return the normalised weights and the biases of all layers, concatenated."""
        flat = torch.empty(self.parameters)
        self._entries(flat, self.library.vlae_fold)
        return flat

    def gradients(self, flat: Tensor) -> list[Tensor]:
        """Return the gradients of `tensors`, given the gradient of `weights()`."""
        gradients = [torch.empty_like(tensor) for tensor in self.tensors]
        self._entries(flat, self.library.vlae_unfold, gradients)
        return gradients

    def _entries(
        self, flat: Tensor, function: Callable, gradients: list[Tensor] | None = None
    ) -> None:
        entries, at, seen, count = [], flat.data_ptr(), set(), len(self.layers)
        shared = len(self.place)
        for i, (layer, direction) in enumerate(self.layers):
            place = self.place[id(direction)]
            behind = at + 4 * direction.numel()
            into = [0, 0, 0]
            if gradients is not None:
                into = [gradients[j].data_ptr() for j in (place, shared + i, shared + count + i)]
            entries.append(entry(layer, direction, at, behind, into, place in seen, False))
            seen.add(place)
            at = behind + 4 * layer.gain.numel()
        function(count, array_of(entries), torch.get_num_threads())


def entry(
    layer: Layer,
    direction: Tensor,
    weight: int,
    bias: int,
    into: list[int],
    add: bool,
    rounded: bool,
) -> WeightEntry:
    """Return a WeightEntry of weights.h.

    weight, bias: addresses to write to, or to read the gradients from. into: addresses of the
    gradients of direction, gain and bias. add: add to the direction's gradient. rounded: the
    weight is bfloat16.
    """
    assert _output_units_first(direction) or layer.unit_dim
    units, size = layer.gain.numel(), direction.numel() // layer.gain.numel()
    strides = (1, units) if layer.unit_dim else (size, 1)
    mask, mask_stride = 0, 0
    if layer.mask is not None:
        mask, mask_stride = layer.mask.data_ptr(), size if len(layer.mask) > 1 else 0
    own_bias = layer.bias.data_ptr() if bias else 0
    return WeightEntry(
        *(direction.data_ptr(), layer.gain.data_ptr(), mask, own_bias),
        *(weight, bias, weight, bias, *into),
        *(units, size, *strides, mask_stride, rounded, add),
    )


def _output_units_first(v: Tensor) -> bool:
    """Return True if v stores one output unit after the other, with channels last."""
    return v.is_contiguous(
        memory_format=torch.channels_last if v.dim() == 4 else torch.contiguous_format
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _gradient_chunks(core: Core, images: int) -> Tensor:
    return torch.zeros((images + 7) // 8, core.parameters)


def _forget(core: Core, kept: int) -> None:
    core.library.vlae_forget(core.handle, kept)


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, core: Core, recording: bool, x: Tensor, *tensors: Tensor) -> Tensor:
        weights = core.weights()
        y = torch.empty(len(x), *core.output)
        needed = recording and any(ctx.needs_input_grad)
        ctx.kept = core.library.vlae_forward(
            core.handle, _address(weights), len(x), _address(x), _address(y), needed,
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.core, ctx.shape, ctx.weights = core, x.shape, weights
        if needed:
            ctx.tapes = weakref.finalize(ctx, _forget, core, ctx.kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        core, images = ctx.core, len(dy)
        if not ctx.tapes.detach():
            raise RuntimeError("the gradient of this operation can be taken only once")
        dy = dy.float().contiguous()
        gradient = _gradient_chunks(core, images)
        dx = torch.empty(ctx.shape) if ctx.needs_input_grad[2] else None
        core.library.vlae_backward(
            core.handle, ctx.kept, _address(ctx.weights), images, _address(dy),
            _address(gradient), _address(dx), torch.get_num_threads(),
        )  # fmt: skip
        return None, None, dx, *core.gradients(gradient.sum(0))


class _LogLikelihood(torch.autograd.Function):
    """Computes the gradient in the forward pass, while an image's features are in CPU cache.

    That gradient is the sum over the images. If they turn out to have different weights, it is
    of no use, and the backward pass computes both again. So with `ahead` False it is not computed.
    """

    @staticmethod
    def forward(
        ctx: Any, core: Core, ahead: bool, x: Tensor, target: Tensor, *tensors: Tensor
    ) -> Tensor:
        result, gradient, dx = _LogLikelihood.compute(
            core, x, target, ahead and any(ctx.needs_input_grad)
        )
        ctx.core = core
        ctx.save_for_backward(x, target, gradient, dx)
        return result

    @staticmethod
    def compute(
        core: Core, x: Tensor, target: Tensor, needed: bool, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        weights, result = core.weights(), torch.empty(len(x))
        gradient = _gradient_chunks(core, len(x)) if needed else None
        dx = torch.empty_like(x) if needed else None
        core.library.vlae_log_likelihood(
            core.handle, _address(weights), len(x), _address(x), _address(target),
            _address(result), _address(scale), _address(gradient), _address(dx),
            torch.get_num_threads(),
        )  # fmt: skip
        return result, None if gradient is None else gradient.sum(0), dx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> Any:
        x, target, gradient, dx = ctx.saved_tensors
        core = ctx.core
        if gradient is not None and torch.equal(d, d[:1].expand_as(d)):  # a mean over the batch
            gradient, dx = gradient * d[0], dx * d[0]
        else:
            _, gradient, dx = _LogLikelihood.compute(core, x, target, True, d.contiguous())
        return None, None, dx, None, *core.gradients(gradient)


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Layer, direction: Tensor, gain: Tensor) -> Tensor:
        weight = torch.empty_like(direction, dtype=mode().features)
        _Fold.call("vlae_fold", layer, direction, weight, [0, 0, 0])
        ctx.layer = layer
        ctx.save_for_backward(direction, gain)
        return weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dw: Tensor) -> Any:
        direction, gain = ctx.saved_tensors
        d_direction, d_gain = torch.empty_like(direction), torch.empty_like(gain)
        dw = torch.empty_like(direction, dtype=mode().features).copy_(dw)
        into = [d_direction.data_ptr(), d_gain.data_ptr(), 0]
        _Fold.call("vlae_unfold", ctx.layer, direction, dw, into)
        return None, d_direction, d_gain

    @staticmethod
    def call(
        function: str, layer: Layer, direction: Tensor, weight: Tensor, into: list[int]
    ) -> None:
        rounded = weight.dtype == torch.bfloat16
        one = entry(layer, direction, weight.data_ptr(), 0, into, False, rounded)
        getattr(loaded(), function)(1, array_of([one]), torch.get_num_threads())


def foldable(layer: Layer) -> bool:
    """Return True if the core computes the layer's weight (see `folded`)."""
    v = layer.direction
    return (
        v is not None
        and v.dtype == torch.float32
        and layer.unit_dim == 0
        and active(v)
        and _output_units_first(v)
        and (layer.mask is None or layer.mask.stride() == v.stride())
    )


def folded(layer: Layer) -> Tensor:
    """Return the layer's weight g v / ||v|| in the features' type, computed in one pass."""
    return _Fold.apply(layer, layer.direction, layer.gain)
