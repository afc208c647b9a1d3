"""Data sets whose files do not each hold one split, read strictly and written back.

silhouettes_mat: MATLAB 5 file of Caltech-101 Silhouettes (Marlin): train_data, val_data and
      test_data, uint8 (N, 784) of 0 and 1, an image's pixels column by column, the object 0.
chardata_mat: MATLAB 5 file of OMNIGLOT (Burda et al.): data and testdata, real (784, N), grey
      values in [0, 1], an image's pixels column by column, ink 1.
lake_npz, lake_zip: the drawings that OMNIGLOT was made from, see vlae.data.formats.omniglot.
cifar10_tar, cifar10_bin: CIFAR-10, see vlae.data.formats.cifar.

Every reader here takes a file and the number of images of each split, and returns train, valid
and test as uint8 (N, 28, 28), upright, the object or the ink being what is not 0. Anything else
in the file is a VlaeError in one line that names it. Nothing is ever unpickled.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae.data.formats import cifar, omniglot
from vlae.data.formats.split_files import PIXELS, SHAPE
from vlae.errors import VlaeError, one_line

SILHOUETTES = {"train": "train_data", "valid": "val_data", "test": "test_data"}

# Burda et al. shuffle before they hold images out, by numpy's RandomState, whose numbers are
# frozen: the same permutation with every version of numpy.
SHUFFLE_SEED = 123

Splits = dict[str, np.ndarray]
Counts = dict[str, int]


def read_silhouettes(path: Path, counts: Counts) -> Splits:
    """Caltech-101 Silhouettes: values 0 and 1, turned over so that the object is 1.

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


def read_chardata(path: Path, counts: Counts) -> Splits:
    """OMNIGLOT of Burda et al.: grey values, rounded to 0 to 255; the validation images are the
    last of the shuffled training part, as in their code.

    Raises VlaeError unless the file holds exactly train + valid and test images of `counts`.
    """
    wanted = {"data": counts["train"] + counts["valid"], "testdata": counts["test"]}
    table = _read_mat(path, wanted)
    greys = []
    for key, count in wanted.items():
        columns = table[key]
        single = getattr(columns, "dtype", None) == "float32"
        _expect(path, key, columns, "float32" if single else "float64", (PIXELS, count))
        if not (columns.min() >= 0 and columns.max() <= 1):  # also true of a NaN
            raise VlaeError(
                f"{path}: {key} has values from {columns.min():g} to {columns.max():g}, "
                "not in [0, 1]"
            )
        greys.append(np.rint(255 * _upright(columns.T)).astype(np.uint8))
    return _hold_out(greys[0], counts["valid"]) | {"test": greys[1]}


def read_lake_npz(path: Path, counts: Counts) -> Splits:
    """OMNIGLOT rebuilt from Lake's drawings (vlae.data.formats.omniglot): grey values 0 to 255,
    held out as in chardata.mat.

    Raises VlaeError unless the file holds exactly the drawings that make the splits of `counts`.
    """
    return _rebuilt(path, omniglot.read_drawings_npz(path, _drawings(counts)), counts)


def read_lake_zip(background: Path, evaluation: Path, counts: Counts) -> Splits:
    """The same from the two archives as they are published."""
    paths = dict(zip(omniglot.ZIP_FILES, (background, evaluation), strict=True))
    parts = [omniglot.read_drawings_zip(p, key, _drawings(counts)) for key, p in paths.items()]
    return _rebuilt(evaluation, omniglot.joined(parts), counts)


def _drawings(counts: Counts) -> int:
    """So many drawings may make so many images: one of 20 is left out of some characters."""
    return sum(counts.values()) * 20 // 19 + 1


def _rebuilt(path: Path, drawings: omniglot.Drawings, counts: Counts) -> Splits:
    train, test = omniglot.grey_images(path, drawings)
    wanted = {"training": counts["train"] + counts["valid"], "test": counts["test"]}
    for (part, count), found in zip(wanted.items(), (train, test), strict=True):
        if len(found) != count:
            raise VlaeError(f"{path}: {len(found):,} {part} drawings instead of {count:,}")
    return _hold_out(train, counts["valid"]) | {"test": test}


def _upright(rows: np.ndarray) -> np.ndarray:
    """Images (N, 784), pixels column by column, as (N, 28, 28) with the top row first."""
    return rows.reshape(-1, *SHAPE).transpose(0, 2, 1)


def _hold_out(images: np.ndarray, valid: int) -> Splits:
    """The last `valid` images of a shuffle, and the others."""
    shuffled = images[np.random.RandomState(SHUFFLE_SEED).permutation(len(images))]
    return {"train": shuffled[:-valid], "valid": shuffled[-valid:]}


def _expect(path: Path, key: str, array: np.ndarray, dtype: str, shape: tuple) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise VlaeError(f"{path}: {key} is {array.dtype} {array.shape} instead of {dtype} {shape}")


def _read_mat(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """Those variables of a MATLAB 5 file. VlaeError if it is none, or one of them is missing."""
    import scipy.io

    try:
        table = scipy.io.loadmat(path, appendmat=False, variable_names=list(keys))
    except Exception as error:  # SciPy raises a different type for every damage
        if getattr(error, "filename", None) is not None:  # the file itself, not what is in it
            raise
        why = one_line(error) or type(error).__name__
        raise VlaeError(f"{path}: not a usable MATLAB 5 file ({why})") from None
    missing = [key for key in keys if key not in table]
    if missing:
        raise VlaeError(f"{path}: {', '.join(missing)} missing")
    return {key: table[key] for key in keys}


def write_silhouettes(path: Path, arrays: Splits) -> None:
    """Write splits of upright images, uint8 (N, 28, 28), object 1, as they are published."""
    import scipy.io

    table = {
        key: 1 - arrays[split].transpose(0, 2, 1).reshape(-1, PIXELS)
        for split, key in SILHOUETTES.items()
    }
    scipy.io.savemat(path, table, appendmat=False, do_compression=True)


def write_chardata(path: Path, train: np.ndarray, test: np.ndarray) -> None:
    """Write upright grey images, uint8 (N, 28, 28), as they are published; the training part is
    in its order before the shuffle."""
    import scipy.io

    table = {
        key: image.transpose(0, 2, 1).reshape(-1, PIXELS).T / 255
        for key, image in (("data", train), ("testdata", test))
    }
    scipy.io.savemat(path, table, appendmat=False, do_compression=True)


def _noise(count: int, side: int, high: int) -> np.ndarray:
    """Fixed images, uint8 (count, side, side), of values below `high`, a power of 2."""
    content = hashlib.shake_256(f"{count} {side}".encode()).digest(count * side * side)
    return np.frombuffer(content, np.uint8).reshape(count, side, side) & (high - 1)


def example_silhouettes(path: Path) -> Counts:
    arrays = {"train": _noise(5, 28, 2), "valid": _noise(3, 28, 2), "test": _noise(4, 28, 2)}
    write_silhouettes(path, arrays)
    return {split: len(images) for split, images in arrays.items()}


def example_chardata(path: Path) -> Counts:
    write_chardata(path, _noise(8, 28, 256), _noise(4, 28, 256))
    return {"train": 5, "valid": 3, "test": 4}


def example_lake_npz(path: Path) -> Counts:
    omniglot.write_npz(path, omniglot.example(Glagolitic=1, Braille=2, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}


def example_lake_zip(background: Path, evaluation: Path) -> Counts:
    omniglot.write_zip(background, "background", omniglot.example(Braille=2))
    omniglot.write_zip(evaluation, "evaluation", omniglot.example(Glagolitic=1, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}


@dataclass(frozen=True)
class Archive:
    """A format: its reader, and what writes small files of it and tells what they hold. `files`
    are the keys of the files in params.yaml; both functions take their paths in this order."""

    read: Callable[..., Splits]  # (path, ..., counts=Counts)
    example: Callable[..., Counts]  # (path, ...)
    files: tuple[str, ...] = ("all",)


ARCHIVES = {
    "silhouettes_mat": Archive(read_silhouettes, example_silhouettes),
    "chardata_mat": Archive(read_chardata, example_chardata),
    "lake_npz": Archive(read_lake_npz, example_lake_npz),
    "cifar10_tar": Archive(cifar.read_tar, cifar.example_tar),
    "lake_zip": Archive(read_lake_zip, example_lake_zip, omniglot.ZIP_FILES),
    "cifar10_bin": Archive(cifar.read_bin, cifar.example_bin, cifar.BIN_FILES),
}
