"""The C++ core's own structures, field by field as in its headers."""

import ctypes
from collections.abc import Sequence

int32, int64, address = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class OpRow(ctypes.Structure):
    """network.h: an operation of a network; its scale in thousandths."""

    _fields_ = tuple(
        (name, int32)
        for name in (
            *("kind", "inputs", "outputs", "side_in", "side_out"),
            *("kernel", "causal", "thousandths"),
        )
    )


class WeightEntry(ctypes.Structure):
    """weights.h: a weight-normalised layer, to be folded into its weight or unfolded again."""

    _fields_ = (
        *((name, address) for name in ("v", "gain", "mask", "bias")),
        *((name, address) for name in ("w", "bias_out", "dw", "dbias_in")),
        *((name, address) for name in ("dv", "dgain", "dbias")),
        *((name, int64) for name in ("units", "size", "unit_stride", "element_stride")),
        *((name, int64) for name in ("mask_stride", "rounded", "accumulate")),
    )


class StepEntry(ctypes.Structure):
    """weights.h: a weight and what Adamax keeps of it."""

    _fields_ = (
        *((name, address) for name in ("weight", "gradient", "momentum", "norm", "average")),
        ("size", int64),
    )


def array_of(entries: Sequence[ctypes.Structure]) -> ctypes.Array:
    """The entries one behind the other, as C++ takes them; there is at least one."""
    return (type(entries[0]) * len(entries))(*entries)
