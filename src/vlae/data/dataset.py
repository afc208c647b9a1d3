"""A prepared data set: data/NAME.npz, its check, and its reading."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae import paths
from vlae.data.formats import SHAPE
from vlae.errors import VlaeError
from vlae.reading import read_npz

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Dataset:
    """The images of a data set: train, valid, test, each uint8 (N, 28, 28).

    binarization "fixed": values 0 and 1. "dynamic": grey values 0 to 255, of which bits are
    drawn with probability pixel / 255. `sha256` is that of the prepared file.
    """

    name: str
    binarization: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    sha256: str


def check_arrays(arrays: dict[str, np.ndarray], binarization: str) -> None:
    """Raise ValueError unless these are the three splits, whole, typed and valued as they ought
    to be (see Dataset)."""
    if set(arrays) != set(SPLITS):
        raise ValueError(
            f"holds {', '.join(sorted(arrays)) or 'nothing'}, not {', '.join(SPLITS)}"
        )
    for split in SPLITS:
        array = arrays[split]
        if array.dtype != np.uint8 or array.shape[1:] != SHAPE or len(array) == 0:
            rows, columns = SHAPE
            raise ValueError(
                f"{split} is {array.dtype} {array.shape}, not uint8 (N, {rows}, {columns})"
            )
        if binarization == "fixed" and array.max() > 1:
            raise ValueError(f"{split} has the value {array.max()}: not binarized")


def load(name: str, binarization: str, root: Path = Path("data")) -> Dataset:
    """Read the prepared data set `name` from the folder `root`.

    Raises VlaeError if it has not been fetched, or is not a prepared data set of this
    binarization ("fixed" or "dynamic").
    """
    path = root / paths.dataset(name).name
    again = f"run `vlae fetch {name}`"
    try:
        # One open file for both, so that the checksum is that of what is read.
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            arrays = read_npz(file)
        check_arrays(arrays, binarization)
    except FileNotFoundError:
        raise VlaeError(f"{path} is missing: {again}") from None
    except (OSError, ValueError) as error:
        raise VlaeError(f"{path} cannot be used: {error}; {again} again") from None
    return Dataset(name, binarization, sha256=sha256, **arrays)
