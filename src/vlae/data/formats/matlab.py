"""The MATLAB 5 files of two data sets, read by SciPy.

silhouettes_mat: Caltech-101 Silhouettes (Marlin). train_data, val_data and test_data are uint8
      (N, 784) of 0 and 1, with pixels in column-major order; the object is 0. train_labels,
      val_labels and test_labels are uint8 (N, 1), from 1.
chardata_mat: OMNIGLOT (Burda et al.). data and testdata are real (784, N), grey values in [0, 1],
      with pixels in column-major order; ink is 1.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from vlae.data.formats.splits import Counts, Splits, hold_out, noise
from vlae.errors import VlaeError, one_line
from vlae.images import BINARY_IMAGE as SHAPE

PIXELS = SHAPE[0] * SHAPE[1]
SILHOUETTES = {"train": "train_data", "valid": "val_data", "test": "test_data"}
LABELS = {"train": "train_labels", "valid": "val_labels", "test": "test_labels"}


def read_silhouettes(path: Path, counts: Counts) -> Splits:
    """Read Caltech-101 Silhouettes, with values 0 and 1 swapped so that the object is 1.

    Raises VlaeError unless the file holds exactly the splits of `counts`.
    """
    table = _read_mat(path, SILHOUETTES.values())
    arrays = {}
    for split, key in SILHOUETTES.items():
        rows = table[key]
        _expect(path, key, rows, "uint8", (counts[split], PIXELS))
        if rows.max() > 1:
            raise VlaeError(f"{path}: {key} has the value {rows.max()}, not only 0 and 1")
        arrays[split] = np.ascontiguousarray(1 - _upright(rows))
    return arrays


def read_silhouette_labels(path: Path, counts: Counts) -> Splits:
    """Read the labels of Caltech-101 Silhouettes, counted from 0: split -> uint8 (N,).

    Raises VlaeError unless the file holds exactly the splits of `counts`.
    """
    table = _read_mat(path, LABELS.values())
    labels = {}
    for split, key in LABELS.items():
        _expect(path, key, table[key], "uint8", (counts[split], 1))
        if table[key].min() < 1:
            raise VlaeError(f"{path}: {key} has the value 0; its labels count from 1")
        labels[split] = table[key][:, 0] - 1
    return labels


def read_chardata(path: Path, counts: Counts) -> Splits:
    """Read OMNIGLOT of Burda et al. as grey values, scaled and rounded to 0 to 255.

    As in their code, the training images are shuffled and the last ones are the validation set.
    Raises VlaeError unless the file holds exactly the train + valid and test images of `counts`.
    """
    wanted = {"data": counts["train"] + counts["valid"], "testdata": counts["test"]}
    table = _read_mat(path, wanted)
    greys = []
    for key, count in wanted.items():
        columns = table[key]
        single = getattr(columns, "dtype", None) == "float32"
        _expect(path, key, columns, "float32" if single else "float64", (PIXELS, count))
        if not (columns.min() >= 0 and columns.max() <= 1):  # also catches NaN
            raise VlaeError(
                f"{path}: {key} has values from {columns.min():g} to {columns.max():g}, "
                "not in [0, 1]"
            )
        greys.append(np.rint(255 * _upright(columns.T)).astype(np.uint8))
    return hold_out(greys[0], counts["valid"]) | {"test": greys[1]}


def _upright(rows: np.ndarray) -> np.ndarray:
    """Convert images (N, 784) in column-major order to (N, 28, 28)."""
    return rows.reshape(-1, *SHAPE).transpose(0, 2, 1)


def _expect(path: Path, key: str, array: np.ndarray, dtype: str, shape: tuple) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise VlaeError(f"{path}: {key} is {array.dtype} {array.shape} instead of {dtype} {shape}")


def _read_mat(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """Read the variables `keys` of a MATLAB 5 file.

    Raises VlaeError if it is not such a file or a variable is missing.
    """
    import scipy.io

    try:
        table = scipy.io.loadmat(path, appendmat=False, variable_names=list(keys))
    except Exception as error:  # SciPy raises many types for damaged files
        if getattr(error, "filename", None) is not None:  # about the file, not its content
            raise
        why = one_line(error) or type(error).__name__
        raise VlaeError(f"{path}: not a usable MATLAB 5 file ({why})") from None
    missing = [key for key in keys if key not in table]
    if missing:
        raise VlaeError(f"{path}: {', '.join(missing)} missing")
    return {key: table[key] for key in keys}


def write_silhouettes(path: Path, arrays: Splits) -> None:
    """Write splits, uint8 (N, 28, 28) with object 1, in the published form."""
    import scipy.io

    table = {
        key: 1 - arrays[split].transpose(0, 2, 1).reshape(-1, PIXELS)
        for split, key in SILHOUETTES.items()
    }
    scipy.io.savemat(path, table, appendmat=False, do_compression=True)


def write_chardata(path: Path, train: np.ndarray, test: np.ndarray) -> None:
    """Write grey images, uint8 (N, 28, 28), in the published form.

    The training images are in their order before the shuffle.
    """
    import scipy.io

    table = {
        key: image.transpose(0, 2, 1).reshape(-1, PIXELS).T / 255
        for key, image in (("data", train), ("testdata", test))
    }
    scipy.io.savemat(path, table, appendmat=False, do_compression=True)


def example_silhouettes(path: Path) -> Counts:
    """Write a small file; return its numbers of images."""
    arrays = {"train": noise(5, 28, 2), "valid": noise(3, 28, 2), "test": noise(4, 28, 2)}
    write_silhouettes(path, arrays)
    return {split: len(images) for split, images in arrays.items()}


def example_silhouette_labels(path: Path) -> Counts:
    """Write a small file of labels; return their numbers."""
    import scipy.io

    counts = {"train": 5, "valid": 3, "test": 4}
    table = {LABELS[split]: np.arange(1, n + 1, dtype=np.uint8) for split, n in counts.items()}
    scipy.io.savemat(path, {key: row[:, None] for key, row in table.items()}, appendmat=False)
    return counts


def example_chardata(path: Path) -> Counts:
    """Write a small file; return its numbers of images."""
    write_chardata(path, noise(8, 28, 256), noise(4, 28, 256))
    return {"train": 5, "valid": 3, "test": 4}
