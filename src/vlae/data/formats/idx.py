"""The idx format of LeCun's MNIST, read by torchvision.

A file of images has a big-endian header (magic number, count, rows, columns), then one unsigned
byte per pixel in row-major order. A file of labels has the header (magic number, count), then one
unsigned byte per image. Both are often packed by gzip.
"""

import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np

from vlae.errors import VlaeError, one_line
from vlae.images import BINARY_IMAGE as SHAPE

GZIP = b"\x1f\x8b"  # first bytes of a gzip file
IDX_MAGIC = 0x00000803  # unsigned bytes, three dimensions
IDX_LABELS_MAGIC = 0x00000801  # unsigned bytes, one dimension


def read_idx(path: Path, count: int) -> np.ndarray:
    """Read the `count` grey images of an idx file, packed or not: uint8 (count, 28, 28), 0 to 255.

    Raises VlaeError if the file is damaged, or does not hold exactly these images.
    """
    return _read(path, (count, *SHAPE))


def read_idx_labels(path: Path, count: int) -> np.ndarray:
    """Read the `count` labels of an idx file, packed or not: uint8 (count,).

    Raises VlaeError if the file is damaged, or does not hold exactly these labels.
    """
    return _read(path, (count,))


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        content = path.read_bytes()
        array = parse_idx(gzip.decompress(content) if content[:2] == GZIP else content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise VlaeError(f"{path}: not a complete gzip file ({error})") from None
    except ValueError as error:
        raise VlaeError(f"{path}: {error}") from None
    if array.dtype != np.uint8 or array.shape != shape:
        raise VlaeError(f"{path}: holds {array.dtype} {array.shape}, not uint8 {shape}")
    return array


def parse_idx(content: bytes) -> np.ndarray:
    """Return the array in an idx file. Raises ValueError, in one line, for other content."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    with tempfile.NamedTemporaryFile() as file:  # torchvision takes a path
        file.write(content)
        file.flush()
        try:
            return read_sn3_pascalvincent_tensor(file.name).numpy()
        except Exception as error:  # torchvision raises AssertionError, KeyError and others
            why = one_line(error) or type(error).__name__
            raise ValueError(f"not in idx format ({why})") from None


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write grey images, uint8 (N, 28, 28), or labels, uint8 (N,), as a gzipped idx file with
    reproducible bytes."""
    magic = IDX_MAGIC if array.ndim == 3 else IDX_LABELS_MAGIC
    header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
