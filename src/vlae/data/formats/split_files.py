"""The raw formats that the data sets are published in, read strictly and written back.

amat: text, one image a line, 784 digits 0 or 1 in row-major order with single spaces between
      them and a line feed at the end, so 1,568 bytes a line (Larochelle's binarized MNIST).
idx:  gzip of a big-endian header (magic number, count, rows, columns) and then one unsigned
      byte a pixel in row-major order (LeCun's MNIST).

Every reader takes a file and the number of images it has to hold, and returns them as uint8
(N, 28, 28). Anything else in the file is a VlaeError that names the file and the place.
"""

import gzip
import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlae.errors import VlaeError, one_line
from vlae.images import BINARY_IMAGE as SHAPE

PIXELS = SHAPE[0] * SHAPE[1]

AMAT_LINE = 2 * PIXELS
AMAT_PATTERN = re.compile(rb"(?:[01] ){%d}[01]\n" % (PIXELS - 1))

IDX_MAGIC = 0x00000803  # unsigned bytes, three dimensions


def read_amat(path: Path, count: int) -> np.ndarray:
    """The `count` binary images of an amat file: uint8 (count, 28, 28), values 0 and 1.

    Raises VlaeError with the line and what was found there, if the file is not exactly that.
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
    # Something is wrong: go through it again slowly, only to say what and where.
    raise VlaeError(f"{path}: {_amat_fault(path, count)}")


def _amat_fault(path: Path, count: int) -> str:
    """What is wrong with an amat file, reading no more of it than that takes."""
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


def read_idx(path: Path, count: int) -> np.ndarray:
    """The `count` grey images of a gzipped idx file: uint8 (count, 28, 28), values 0 to 255.

    Raises VlaeError if the file is no gzip, is damaged, or does not hold exactly these images.
    """
    try:
        with gzip.open(path, "rb") as file:
            images = parse_idx(file.read())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise VlaeError(f"{path}: not a complete gzip file ({error})") from None
    except ValueError as error:
        raise VlaeError(f"{path}: {error}") from None
    if images.dtype != np.uint8 or images.shape != (count, *SHAPE):
        raise VlaeError(
            f"{path}: holds {images.dtype} {images.shape}, not uint8 {(count, *SHAPE)}"
        )
    return images


def parse_idx(content: bytes) -> np.ndarray:
    """The array in an idx file, by torchvision. Raises ValueError, in one line, for another
    file."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    with tempfile.NamedTemporaryFile() as file:  # torchvision takes a path
        file.write(content)
        file.flush()
        try:
            return read_sn3_pascalvincent_tensor(file.name).numpy()
        except Exception as error:  # assertions, lookups and sizes that do not fit
            why = one_line(error) or type(error).__name__
            raise ValueError(f"not images in idx format ({why})") from None


def write_idx(path: Path, images: np.ndarray) -> None:
    """Write grey images, uint8 (N, 28, 28), as a gzipped idx file, the same bytes each time."""
    header = struct.pack(">4I", IDX_MAGIC, *images.shape)
    path.write_bytes(gzip.compress(header + images.tobytes(), mtime=0))


READERS: dict[str, Callable[[Path, int], np.ndarray]] = {"amat": read_amat, "idx": read_idx}
WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {"amat": write_amat, "idx": write_idx}
