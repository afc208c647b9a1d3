"""Builds the C++ core, once per machine, and loads it.

The core needs a C++ compiler and an x86 processor. It has two modes (`instructions`):

- "AVX-512", for processors with bfloat16 dot products (AVX512-BF16): networks in bfloat16. It uses
  AMX tiles if the processor has them.
- "AVX2", for processors with AVX2 and FMA but without AVX-512: networks in single precision.

On other machines PyTorch's operations do the same work. Every record names the backend that was
used. VLAE_NATIVE=avx2 chooses the second mode on any processor that has both (`processor_flags`);
VLAE_NATIVE=0 switches the core off.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from vlae.errors import VlaeError
from vlae.hardware import processor_flags
from vlae.storage.write import write_atomically

logger = logging.getLogger(__name__)

SOURCES = (
    *("library.cpp", "dots.h", "elementwise.h", "lanes.h", "network.h"),
    *("planes.h", "tiles.h", "vectors.h", "weights.h"),
)
FLAGS = ("-O3", "-fno-math-errno", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-w")


@dataclass(frozen=True)
class Mode:
    """A way to compute: what it needs of the processor, and how it is compiled.

    features: the type in which the networks' features are stored.
    """

    needed: tuple[str, ...]
    flags: tuple[str, ...]
    precision: str
    features: torch.dtype


MODES = {
    "AVX-512": Mode(
        ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"),
        ("-march=native",),
        "bfloat16",
        torch.bfloat16,
    ),
    "AVX2": Mode(("avx2", "fma"), ("-mavx2", "-mfma"), "float32", torch.float32),
}

pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
real = ctypes.c_float
SIGNATURES = {
    "vlae_has_tiles": (int32, []),
    "vlae_network": (pointer, [pointer, int32]),
    "vlae_release": (None, [pointer]),
    "vlae_parameters": (int64, [pointer]),
    "vlae_forward": (pointer, [pointer, pointer, int64, pointer, pointer, int32, int64]),
    "vlae_backward": (None, [*[pointer] * 3, int64, *[pointer] * 3, int64]),
    "vlae_forget": (None, [pointer, pointer]),
    "vlae_log_likelihood": (None, [*[pointer] * 2, int64, *[pointer] * 6, int64]),
    "vlae_fold": (None, [int64, pointer, int64]),
    "vlae_adamax": (None, [int64, pointer, *[real] * 5, int64]),
    "vlae_unfold": (None, [int64, pointer, int64]),
    "vlae_concat_elu": (None, [pointer, int64, *[pointer] * 3, int64]),
    "vlae_concat_elu_back": (None, [*[pointer] * 4, *[int64] * 2]),
    "vlae_gated": (None, [*[int64] * 2, *[pointer] * 4, int64]),
    "vlae_gated_back": (None, [*[int64] * 2, *[pointer] * 4, int64]),
    "vlae_elu": (None, [int64, *[pointer] * 2, int64]),
    "vlae_elu_back": (None, [int64, *[pointer] * 3, int64]),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the loaded core, or None if it is not available; see `unavailable_reason`."""
    if unavailable_reason():
        return None
    # Share PyTorch's OpenMP runtime: two runtimes would compete for the same processors.
    for runtime in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
        ctypes.CDLL(str(runtime), ctypes.RTLD_GLOBAL)
    core = ctypes.CDLL(str(_built()))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(core, name)
        function.restype, function.argtypes = result, arguments
    return core


def loaded() -> ctypes.CDLL:
    """Return the loaded core. Raises RuntimeError if it is not available."""
    core = library()
    if core is None:
        raise RuntimeError(f"the C++ core is not available: {unavailable_reason()}")
    return core


@functools.cache
def instructions() -> str:
    """Return the mode for this processor: "AVX-512" or "AVX2".

    The processor may lack the instructions; then the core is not available.
    """
    return "AVX-512" if "avx512f" in processor_flags() else "AVX2"


def mode() -> Mode:
    """Return the core's mode on this processor, whether or not it is available."""
    return MODES[instructions()]


def backend(device: str, precision: str) -> str:
    """Return the backend's name for the record.

    It is "C++ (AMX)", "C++ (AVX-512)", "C++ (AVX2)" or "PyTorch".
    """
    if device != "cpu" or precision != mode().precision or library() is None:
        return "PyTorch"
    return f"C++ ({'AMX' if loaded().vlae_has_tiles() else instructions()})"


@functools.cache
def unavailable_reason() -> str:
    """Return why the core is not available, in a few words; empty if it is available."""
    if os.environ.get("VLAE_NATIVE") == "0":
        return "switched off by VLAE_NATIVE=0"
    missing = [flag for flag in mode().needed if flag not in processor_flags()]
    if missing:
        return f"the processor lacks {missing[-1]}"
    if not _compiler():
        return "no C++ compiler"
    try:
        _built()
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        reason = f"the compiler failed: {lines[-1]}"
    except (OSError, VlaeError, subprocess.TimeoutExpired) as error:
        reason = f"it could not be built: {error}"
    else:
        return ""
    logger.warning("PyTorch works in the place of the C++ core, more slowly: %s", reason)
    return reason


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("clang++")


@functools.cache
def _built() -> Path:
    """Return the shared library, building it if necessary.

    Its name contains a hash of everything that it depends on.
    """
    here = Path(__file__).parent
    compiler = _compiler()
    if compiler is None:
        raise VlaeError("no C++ compiler")
    version, flags = _run(compiler, "--version").stdout, (*FLAGS, *mode().flags)
    parts = [*(here / name for name in SOURCES)]
    key = hashlib.sha256(
        "\0".join(
            [*(p.read_text() for p in parts), version, *flags, *sorted(processor_flags())]
        ).encode()
    ).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "vlae"
    if not cache.is_absolute():
        raise VlaeError("there is no home folder; XDG_CACHE_HOME names another for caches")
    target = cache / f"core-{key}.so"

    def build(path: Path) -> None:
        _run(compiler, *flags, "-o", str(path), str(here / "library.cpp"))

    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(target, build)
    return target


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
