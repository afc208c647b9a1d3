"""A small file system to be filled to its last byte."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FULL = "No space left on device"
MEGABYTES = 64


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """`folder`, new, as a file system of its own; the test is skipped where that cannot be."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 1):  # to the last byte
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        (folder / "more").write_bytes(b"x")
    except OSError as error:
        assert error.errno == errno.ENOSPC
    else:
        raise AssertionError("it is not full")


def empty(folder: Path) -> None:
    (folder / "filler").unlink()
