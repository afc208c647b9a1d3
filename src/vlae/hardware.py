"""The device and precision to compute with, and the name of the hardware."""

import functools
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

from vlae.errors import VlaeError
from vlae.options import DEVICES, PRECISIONS


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device "auto", "cpu" or "cuda", which may have a number ("cuda:1").

    Raises VlaeError for another name, and for a CUDA device that is not there.
    """
    name, _, number = str(device).partition(":")
    if name not in DEVICES or (number and not (name == "cuda" and number.isdecimal())):
        raise VlaeError(f"device must be one of {', '.join(DEVICES)}, not {str(device)!r}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise VlaeError("device cuda: PyTorch sees no CUDA device here; use the device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise VlaeError(
            f"device {device}: there are {torch.cuda.device_count()} CUDA devices here"
        )
    return torch.device(f"{name}:{number}" if number else name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision; "auto" is bfloat16 if the hardware multiplies it, else float32.

    Raises VlaeError for a name that is not in PRECISIONS.
    """
    if name not in PRECISIONS:
        raise VlaeError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if not torch.backends.mkldnn.is_available() or not _native():
        return "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def _native() -> bool:
    """Return True if the processor multiplies bfloat16; oneDNN may emulate it, which is slow."""
    return not processor_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


@functools.cache
def processor_flags() -> frozenset[str]:
    """Return the features of the first processor in /proc/cpuinfo; none if there is no such file.

    With VLAE_NATIVE=avx2 those beyond AVX2 are left out, so that everything is computed as on a
    processor without them (vlae.native.library).
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return frozenset()
    flags = frozenset(line.split())
    if os.environ.get("VLAE_NATIVE") == "avx2":
        flags = frozenset(
            flag for flag in flags if not flag.startswith(("avx512", "amx", "avx10"))
        )
    return flags


_single: ContextVar[bool] = ContextVar("_single", default=False)


@contextmanager
def _in_single_precision() -> Iterator[None]:
    before = _single.set(True)
    try:
        yield
    finally:
        _single.reset(before)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context of a forward pass in `precision`; weights and likelihood stay float32.

    Only inside of it, the C++ core may compute (`forward_precision`).
    """
    if precision == "float32":
        return _in_single_precision() if device.type == "cpu" else nullcontext()
    # A CUDA graph must not refer to casts that another forward pass has cached.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type == "cpu")


def forward_precision() -> str | None:
    """Return the precision of the forward pass on the CPU that we are in; None outside of any."""
    if torch.is_autocast_enabled("cpu"):
        return "bfloat16" if torch.get_autocast_dtype("cpu") == torch.bfloat16 else None
    return "float32" if _single.get() else None


def set_arithmetic(device: torch.device, precision: str) -> None:
    """Set how a GPU computes, for the whole process. Does nothing on a CPU.

    Convolutions sum in a fixed order, so that a resumed training gives the same weights. With
    precision bfloat16, the few products that stay in float32 may be rounded to TF32.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = precision == "bfloat16"
    torch.backends.cuda.matmul.allow_tf32 = precision == "bfloat16"
    # Steps outside of a CUDA graph use the same Adamax, so that the arithmetic is the same.
    warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")


def describe(device: torch.device) -> str:
    """Return the hardware's name, for example "1 core of AMD EPYC 9655" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
                    break
    except OSError:
        pass  # not Linux: use the architecture's name
    threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return f"{threads} core{'s' if threads > 1 else ''} of {model}"
