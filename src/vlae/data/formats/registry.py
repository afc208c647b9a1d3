"""All raw formats by the name that `format` has in params.yaml.

To add one: a module here that reads it and writes small examples of it, and a line in FORMATS.
Every reader raises VlaeError, in one line that names the file, for a file that does not hold
exactly the images that the block of `datasets:` says. Nothing is ever unpickled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vlae.data.formats import amat, cifar, folder, idx, matlab, omniglot, torchvision_sets
from vlae.data.formats.splits import Counts, Splits
from vlae.errors import VlaeError
from vlae.images import image_kind

Raw = dict[str, Path]  # raw files by their key in `files`


@dataclass(frozen=True)
class Format:
    """read(raw, spec): the splits in the raw files of a block of `datasets:`, each uint8
    (N, *shape of its kind of images), upright, the object or the ink being what is not 0.
    example(raw, spec): writes small files with fixed images there, and says how many.

    needed, optional: the keys that `files` has. own_files(spec): the files of a format that
    knows them itself, so that params.yaml does not name them.
    """

    read: Callable[[Raw, dict], Splits]
    example: Callable[[Raw, dict], Counts]
    needed: tuple[str, ...] = ("all",)
    optional: tuple[str, ...] = ()
    own_files: Callable[[dict], dict] | None = None


def _read_each(read: Callable[[Path, int], np.ndarray], raw: Raw, spec: dict) -> Splits:
    """One file for each split. Validation images without a file are the end of the training
    file."""
    counts, arrays = spec["splits"], {}
    for split, path in raw.items():
        takes_valid = split == "train" and "valid" not in raw
        arrays[split] = read(path, counts[split] + (counts["valid"] if takes_valid else 0))
    if "valid" not in raw:
        arrays["train"], arrays["valid"] = np.split(arrays["train"], [counts["train"]])
    return arrays


def _write_each(write: Callable[[Path, np.ndarray], None], raw: Raw, spec: dict) -> Counts:
    counts = {"train": 5, "valid": 3, "test": 4}
    for split, path in raw.items():
        takes_valid = split == "train" and "valid" not in raw
        count = counts[split] + (counts["valid"] if takes_valid else 0)
        write(path, _noise(split, count, image_kind(spec).largest))
    return counts


def _noise(split: str, count: int, largest: int) -> np.ndarray:
    pixels = hashlib.shake_256(split.encode()).digest(count * amat.PIXELS)
    return np.frombuffer(pixels, np.uint8).reshape(count, *amat.SHAPE) & largest


def _per_split(read: Callable, write: Callable) -> Format:
    return Format(
        partial(_read_each, read), partial(_write_each, write), ("train", "test"), ("valid",)
    )


def _together(read: Callable, example: Callable, keys: tuple[str, ...] = ("all",)) -> Format:
    """A format whose files hold all splits together: read(path, ..., counts=Counts)."""
    return Format(
        lambda raw, spec: read(*(raw[key] for key in keys), counts=spec["splits"]),
        lambda raw, spec: example(*(raw[key] for key in keys)),
        keys,
    )


FORMATS = {
    "amat": _per_split(amat.read_amat, amat.write_amat),
    "idx": _per_split(idx.read_idx, idx.write_idx),
    "silhouettes_mat": _together(matlab.read_silhouettes, matlab.example_silhouettes),
    "chardata_mat": _together(matlab.read_chardata, matlab.example_chardata),
    "lake_npz": _together(omniglot.read_lake_npz, omniglot.example_lake_npz),
    "lake_zip": _together(omniglot.read_lake_zip, omniglot.example_lake_zip, omniglot.ZIP_FILES),
    "cifar10_tar": _together(cifar.read_tar, cifar.example_tar),
    "cifar10_bin": _together(cifar.read_bin, cifar.example_bin, cifar.BIN_FILES),
    "folder": Format(folder.read, folder.example),
    **{
        f"torchvision:{name}": Format(
            partial(torchvision_sets.read, name),
            partial(torchvision_sets.example, name),
            own_files=partial(torchvision_sets.files, name),
        )
        for name in torchvision_sets.NAMES
    },
}


def files_of(spec: dict) -> dict[str, dict]:
    """The raw files of a block of `datasets:` by key, each with its path, urls and checksums."""
    own = FORMATS[spec["format"]].own_files
    return spec["files"] if own is None else own(spec)


def read(spec: dict, raw: Raw) -> Splits:
    """The splits in the raw files. Raises VlaeError if they are not those that `spec` says."""
    if spec["format"] not in FORMATS:
        raise VlaeError(f"no format {spec['format']!r}; there are {', '.join(FORMATS)}")
    return FORMATS[spec["format"]].read(raw, spec)
