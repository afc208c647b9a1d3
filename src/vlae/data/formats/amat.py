"""The amat format of Larochelle's binarized MNIST: text with one image per line.

A line has 784 digits 0 or 1 in row-major order, separated by single spaces, and a line feed: 1,568
bytes.
"""

import re
from pathlib import Path

import numpy as np

from vlae.errors import VlaeError
from vlae.images import BINARY_IMAGE as SHAPE

PIXELS = SHAPE[0] * SHAPE[1]
AMAT_LINE = 2 * PIXELS
AMAT_PATTERN = re.compile(rb"(?:[01] ){%d}[01]\n" % (PIXELS - 1))


def read_amat(path: Path, count: int) -> np.ndarray:
    """Read the `count` binary images of an amat file: uint8 (count, 28, 28), values 0 and 1.

    Raises VlaeError, naming the line and its fault, if the file has any other content.
    """
    if path.stat().st_size == count * AMAT_LINE:
        table = np.fromfile(path, np.uint8).reshape(count, PIXELS, 2)
        pixels = table[:, :, 0] ^ ord("0")
        gaps = table[:, :, 1]
        if (
            not (pixels > 1).any()
            and (gaps[:, :-1] == ord(" ")).all()
            and (gaps[:, -1] == ord("\n")).all()
        ):
            return pixels.reshape(count, *SHAPE)
    # The file is faulty: read it again line by line, to name the fault and its place.
    raise VlaeError(f"{path}: {_amat_fault(path, count)}")


def _amat_fault(path: Path, count: int) -> str:
    """Describe the first fault of an amat file, reading no further than that."""
    lines = 0
    with open(path, "rb") as file:
        while line := file.readline(AMAT_LINE + 1):
            lines += 1
            if lines > count:
                return f"more than the {count:,} lines expected"
            if AMAT_PATTERN.fullmatch(line):
                continue
            if len(line) > AMAT_LINE:
                return f"line {lines:,} is longer than {AMAT_LINE - 1:,} characters"
            if not line.endswith(b"\n"):
                return f"line {lines:,} ends without a line feed"
            if len(line) < AMAT_LINE:
                length = len(line) - 1
                return f"line {lines:,} has {length:,} characters instead of {AMAT_LINE - 1:,}"
            for column, byte in enumerate(line[:-1], 1):
                wanted, what = (b"01", "0 or 1") if column % 2 else (b" ", "a space")
                if byte not in wanted:
                    found = repr(bytes([byte]))
                    return f"line {lines:,}, column {column:,}: {found} where {what} belongs"
    return f"{lines:,} lines instead of {count:,}"


def write_amat(path: Path, images: np.ndarray) -> None:
    """Write binary images, uint8 (N, 28, 28) of 0 and 1, as an amat file."""
    table = np.full((len(images), PIXELS, 2), ord(" "), np.uint8)
    table[:, :, 0] = images.reshape(-1, PIXELS) + ord("0")
    table[:, -1, 1] = ord("\n")
    path.write_bytes(table.tobytes())
