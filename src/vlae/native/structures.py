"""The structures of the C++ core, with the same fields as in its headers."""

import ctypes
from collections.abc import Sequence

int32, int64, address = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class OpRow(ctypes.Structure):
    """network.h: an operation of a network, with its scale in thousandths."""

    _fields_ = tuple(
        (name, int32)
        for name in (
            *("kind", "inputs", "outputs", "side_in", "side_out"),
            *("kernel", "causal", "thousandths"),
        )
    )


class WeightEntry(ctypes.Structure):
    """weights.h: a weight-normalised layer whose weight or gradients are to be computed."""

    _fields_ = (
        *((name, address) for name in ("v", "gain", "mask", "bias")),
        *((name, address) for name in ("w", "bias_out", "dw", "dbias_in")),
        *((name, address) for name in ("dv", "dgain", "dbias")),
        *((name, int64) for name in ("units", "size", "unit_stride", "element_stride")),
        *((name, int64) for name in ("mask_stride", "rounded", "accumulate")),
    )


class StepEntry(ctypes.Structure):
    """weights.h: a weight, its gradient, Adamax's moments and the weight's average."""

    _fields_ = (
        *((name, address) for name in ("weight", "gradient", "momentum", "norm", "average")),
        ("size", int64),
    )


def array_of(entries: Sequence[ctypes.Structure]) -> ctypes.Array:
    """Return a contiguous array of the entries for C++; there must be at least one."""
    return (type(entries[0]) * len(entries))(*entries)
