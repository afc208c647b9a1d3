"""Tests of the C++ core run once for each mode that this processor has (vlae.native.library)."""

import pytest

from vlae import hardware
from vlae.native import library

CACHED = (
    hardware.processor_flags,
    library.instructions,
    library.unavailable_reason,
    library.library,
    library._built,
)


def forget() -> None:
    for function in CACHED:
        function.cache_clear()


@pytest.fixture(params=["of this processor", "AVX2"])
def mode(request, monkeypatch):
    """The core's mode in a test: that of this processor, then AVX2 if that is another one."""
    if request.param == "AVX2":
        if library.instructions() == "AVX2":
            pytest.skip("AVX2 is the mode of this processor")
        monkeypatch.setenv("VLAE_NATIVE", "avx2")
        forget()
    try:
        if reason := library.unavailable_reason():
            pytest.skip(f"no C++ core here: {reason}")
        yield library.mode()
    finally:
        monkeypatch.undo()
        forget()
