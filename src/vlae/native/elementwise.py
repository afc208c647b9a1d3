"""The operations between the convolutions of the colour model, computed by the C++ core.

Each takes one pass over memory; PyTorch takes four to ten. Features have the type of the core's
mode (bfloat16, or float32 with AVX2) and channels last. Other tensors are converted.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlae.native.library import loaded, mode

Border = tuple[int, int, int, int]  # left, right, top, bottom, as in torch.nn.functional.pad


def _channels_last(x: Tensor) -> Tensor:
    """Convert x to the features' type, channels last; no copy if x has that form already."""
    return x.to(mode().features).contiguous(memory_format=torch.channels_last)


def _new(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=mode().features, memory_format=torch.channels_last)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _numbers(*numbers: int) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _parts(parts: Sequence[Tensor]) -> ctypes.Array:
    return _numbers(*(number for x in parts for number in (x.data_ptr(), x.shape[1])))


def concat_elu(parts: Sequence[Tensor], plus: Tensor | None, border: Border) -> Tensor:
    """The C++ version of vlae.nn.concat_elu.concat_elu."""
    images, _, *sides = parts[0].shape
    assert all([x.shape[0], *x.shape[2:]] == [images, *sides] for x in parts)
    assert plus is None or (len(parts) == 1 and plus.shape == parts[0].shape)
    assert min(border) >= 0
    inputs = [_channels_last(x) for x in parts]
    return _ConcatElu.apply(border, None if plus is None else _channels_last(plus), *inputs)


class _ConcatElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, border: Border, plus: Tensor | None, *parts: Tensor) -> Tensor:
        images, _, height, width = parts[0].shape
        left, right, top, bottom = border
        channels = 2 * sum(x.shape[1] for x in parts)
        y = _new(images, channels, top + height + bottom, left + width + right)
        ctx.place = _numbers(images, height, width, *border)
        ctx.shapes, ctx.plus = [x.shape for x in parts], plus is not None
        loaded().vlae_concat_elu(
            _parts(parts), len(parts), _address(plus), ctx.place, _address(y),
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        gradient = _channels_last(gradient)
        parts = [_new(*shape) for shape in ctx.shapes]
        loaded().vlae_concat_elu_back(
            _address(y), _address(gradient), ctx.place, _parts(parts), len(parts),
            torch.get_num_threads(),
        )  # fmt: skip
        return None, parts[0] if ctx.plus else None, *parts


def gated(x: Tensor, h: Tensor, plus: Tensor | None) -> Tensor:
    """The C++ version of vlae.nn.concat_elu.gated.

    x (B, C, H, W), h and plus (B, 2C, H, W) -> (B, C, H, W).
    """
    images, channels, *sides = x.shape
    assert h.shape == (images, 2 * channels, *sides)
    assert plus is None or plus.shape == h.shape
    return _Gated.apply(
        _channels_last(x), _channels_last(h), None if plus is None else _channels_last(plus)
    )


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, plus: Tensor | None) -> Tensor:
        y = _new(*x.shape)
        _Gated.call("vlae_gated", x, x, h, plus, y)
        ctx.save_for_backward(h, plus)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        h, plus = ctx.saved_tensors
        dh, dy = _new(*h.shape), _channels_last(gradient)
        _Gated.call("vlae_gated_back", dy, dy, h, plus, dh)
        return gradient, dh, None if plus is None else dh

    @staticmethod
    def call(function: str, like: Tensor, *tensors: Tensor | None) -> None:
        channels = like.shape[1]
        getattr(loaded(), function)(
            like.numel() // channels, channels, *map(_address, tensors), torch.get_num_threads()
        )


def elu(x: Tensor) -> Tensor:
    """Return elu(x) for a tensor of any shape, of the features' type."""
    return _Elu.apply(x)


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        x = _laid_out_as(y, x)
        loaded().vlae_elu(x.numel(), _address(x), _address(y), torch.get_num_threads())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        gradient, dx = _laid_out_as(y, gradient), torch.empty_like(y)
        loaded().vlae_elu_back(
            y.numel(), _address(y), _address(gradient), _address(dx), torch.get_num_threads()
        )
        return dx


def _laid_out_as(y: Tensor, x: Tensor) -> Tensor:
    """Return x if its strides are those of y, else a copy with the strides of y."""
    return x if x.stride() == y.stride() else torch.empty_like(y).copy_(x)
