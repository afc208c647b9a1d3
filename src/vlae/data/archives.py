"""Data sets whose files do not each hold one split, read strictly and written back.

silhouettes_mat: MATLAB 5 file of Caltech-101 Silhouettes (Marlin): train_data, val_data and
      test_data, uint8 (N, 784) of 0 and 1, an image's pixels column by column, the object 0.
chardata_mat: MATLAB 5 file of OMNIGLOT (Burda et al.): data and testdata, real (784, N), grey
      values in [0, 1], an image's pixels column by column, ink 1.
drawings_npz: numpy archive of Lake's drawings: images, uint8 (N, 105, 14), each row of 105
      pixels packed into 14 bytes, first pixel in the highest bit, ink 1; label, 1, 2, ... with
      20 drawings each; drawer, 1 to 20 within each label.
cifar10_tar, cifar10_xz: CIFAR-10, see vlae.data.cifar.

Every reader here takes a file and the number of images of each split, and returns train, valid
and test as uint8 (N, 28, 28), upright, the object or the ink being what is not 0. Anything else
in the file is a VlaeError in one line that names it. Nothing is ever unpickled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae.data import cifar
from vlae.data.formats import PIXELS, SHAPE
from vlae.data.matlab import is_matlab, read_matrices
from vlae.errors import VlaeError
from vlae.reading import MIB, read_npz

SILHOUETTES = {"train": "train_data", "valid": "val_data", "test": "test_data"}

# Burda et al. shuffle before they hold images out, by numpy's RandomState, whose numbers are
# frozen: the same permutation with every version of numpy.
SHUFFLE_SEED = 123

SIDE = 105  # of one of Lake's drawings
PACKED = 14  # bytes of a row of it
DRAWERS = 20  # drawings of each character
TRAIN_DRAWERS = 15  # those of drawers 1 to 15 are for training, the others for testing

Splits = dict[str, np.ndarray]
Counts = dict[str, int]


def read_silhouettes(path: Path, counts: Counts) -> Splits:
    """Caltech-101 Silhouettes: values 0 and 1, turned over so that the object is 1.

    Raises VlaeError unless the file holds exactly the splits of `counts`.
    """
    table = _read_mat(path, SILHOUETTES.values(), sum(counts.values()))
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
    table = _read_mat(path, wanted, sum(counts.values()))
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


def read_drawings(path: Path, counts: Counts) -> Splits:
    """Lake's drawings, made smaller (see `shrink`): grey values 0 to 255.

    Drawers 1 to 15 of every character are for training, 16 to 20 for testing; the validation
    images are the last of the shuffled training part. Raises VlaeError unless the file holds
    exactly the drawings that make the splits of `counts`.
    """
    total = sum(counts.values())
    table = _read_npz(path, ("images", "label", "drawer"), total * (SIDE * PACKED + 3) + MIB)
    characters = total // DRAWERS
    _expect(path, "images", table["images"], "uint8", (total, SIDE, PACKED))
    _expect(path, "label", table["label"], "uint16", (total,))
    _expect(path, "drawer", table["drawer"], "uint8", (total,))
    label = np.repeat(np.arange(1, characters + 1), DRAWERS)
    drawer = np.tile(np.arange(1, DRAWERS + 1), characters)
    if not (np.array_equal(table["label"], label) and np.array_equal(table["drawer"], drawer)):
        raise VlaeError(
            f"{path}: not {DRAWERS} drawings of each character, in the order of their numbers"
        )
    if (table["images"][:, :, -1] & (2 ** (8 * PACKED - SIDE) - 1)).any():
        raise VlaeError(f"{path}: images has ink beyond pixel {SIDE} of a row")
    small = shrink(table["images"])
    training = drawer <= TRAIN_DRAWERS
    if counts["test"] != (~training).sum():
        raise VlaeError(
            f"{path}: {(~training).sum():,} test drawings instead of {counts['test']:,}"
        )
    return _hold_out(small[training], counts["valid"]) | {"test": small[~training]}


def shrink(packed: np.ndarray) -> np.ndarray:
    """Packed drawings, uint8 (N, 105, 14), as grey images, uint8 (N, 28, 28).

    A pixel of the result is the share of ink in its 3.75 x 3.75 pixels of the drawing, times
    255, rounded; in integers, so that it is the same on every machine.
    """
    # In quarters of a pixel: 4 for each of 105, 15 for each of 28, and 420 in all.
    fine = np.arange(4 * SIDE)
    weight = np.zeros((SHAPE[0], SIDE))
    np.add.at(weight, (fine // 15, fine // 4), 1)
    small = np.empty((len(packed), *SHAPE), np.uint8)
    for start in range(0, len(packed), 1000):
        ink = np.unpackbits(packed[start : start + 1000], axis=2, count=SIDE)
        # Floating point, because only that is fast, and exact with such small integers.
        share = (weight @ ink.astype(np.float64) @ weight.T).astype(np.int64)  # 0 to 225
        # 255 / 225 = 34 / 30; a half never occurs, 34 x being even.
        small[start : start + 1000] = (34 * share + 15) // 30
    return small


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


def _read_mat(path: Path, keys, images: int) -> dict[str, np.ndarray]:
    """Those variables of a MATLAB 5 file, none of more than twice so many images.

    VlaeError if it is none, or a variable is missing or something else.
    """
    if not is_matlab(path):
        raise VlaeError(f"{path}: not a MATLAB 5 file")
    try:
        table = read_matrices(path, keys, 2 * 8 * PIXELS * images + MIB)
    except (ValueError, MemoryError) as error:
        raise VlaeError(f"{path}: a damaged MATLAB file ({error})") from None
    return _picked(path, table, keys)


def _read_npz(path: Path, keys, most: int) -> dict[str, np.ndarray]:
    """Those arrays of a numpy archive; VlaeError if it is none, unpacks to more than `most`
    bytes, or any is missing."""
    try:
        with open(path, "rb") as file:
            table = read_npz(file, keys, most)
    except ValueError as error:
        raise VlaeError(f"{path}: not a usable numpy archive ({error})") from None
    return _picked(path, table, keys)


def _picked(path: Path, table: dict, keys) -> dict[str, np.ndarray]:
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


def write_drawings(path: Path, drawings: np.ndarray) -> None:
    """Write drawings, uint8 (20 C, 105, 105) of 0 and 1, 20 of each of C characters."""
    characters = len(drawings) // DRAWERS
    with open(path, "wb") as file:  # given a path, numpy would change its name
        np.savez_compressed(
            file,
            images=np.packbits(drawings, axis=2),
            label=np.repeat(np.arange(1, characters + 1, dtype=np.uint16), DRAWERS),
            drawer=np.tile(np.arange(1, DRAWERS + 1, dtype=np.uint8), characters),
        )


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


def example_drawings(path: Path) -> Counts:
    write_drawings(path, _noise(2 * DRAWERS, SIDE, 2))
    return {"train": 27, "valid": 3, "test": 10}


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
    "drawings_npz": Archive(read_drawings, example_drawings),
    "cifar10_tar": Archive(cifar.read_tar, cifar.example_tar),
    "cifar10_xz": Archive(cifar.read_xz, cifar.example_xz, cifar.XZ_FILES),
}
