"""All raw formats, by the name used for `format` in params.yaml.

To add one, write a module here that reads it and writes small examples, and add a line to FORMATS.
Every reader raises VlaeError, in one line that names the file, unless the file holds exactly the
images that the block of `datasets:` describes. Nothing is unpickled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vlae.data.formats import (
    amat,
    cifar,
    folder,
    idx,
    matlab,
    mnist_labels,
    omniglot,
    one_bit,
    torchvision_sets,
)
from vlae.data.formats.splits import Counts, Splits
from vlae.errors import VlaeError
from vlae.images import COLOUR, FIXED, image_kind

Raw = dict[str, Path]  # raw files by their key in `files`


@dataclass(frozen=True)
class Format:
    """A raw format.

    read(raw, spec): returns the splits in the raw files of a block of `datasets:`. Each is uint8
        (N, *shape of its kind of images), upright, with object or ink above 0.
    example(raw, spec): writes small files with fixed images to `raw`; returns their counts.
    needed, optional: the keys of `files`.
    own_files(spec): returns the files, for a format whose files params.yaml does not name.
    kind: name of the kind of images that it has; None: of any.
    """

    read: Callable[[Raw, dict], Splits]
    example: Callable[[Raw, dict], Counts]
    needed: tuple[str, ...] = ("all",)
    optional: tuple[str, ...] = ()
    own_files: Callable[[dict], dict] | None = None
    kind: str | None = FIXED.name


def _read_each(read: Callable[[Path, int], np.ndarray], raw: Raw, spec: dict) -> Splits:
    """Read one file per split. Without a file `valid`, the last training images are that split."""
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


def _together(
    read: Callable,
    example: Callable,
    keys: tuple[str, ...] = ("all",),
    kind: str = FIXED.name,
) -> Format:
    """Return a format whose files hold all splits together: read(path, ..., counts=Counts)."""
    return Format(
        lambda raw, spec: read(*(raw[key] for key in keys), counts=spec["splits"]),
        lambda raw, spec: example(*(raw[key] for key in keys)),
        keys,
        kind=kind,
    )


FORMATS = {
    "amat": _per_split(amat.read_amat, amat.write_amat),
    "idx": _per_split(idx.read_idx, idx.write_idx),
    "silhouettes_mat": _together(matlab.read_silhouettes, matlab.example_silhouettes),
    "chardata_mat": _together(matlab.read_chardata, matlab.example_chardata),
    "lake_npz": _together(omniglot.read_lake_npz, omniglot.example_lake_npz),
    "lake_zip": _together(omniglot.read_lake_zip, omniglot.example_lake_zip, omniglot.ZIP_FILES),
    "cifar10_tar": _together(cifar.read_tar, cifar.example_tar, kind=COLOUR.name),
    "cifar10_bin": _together(cifar.read_bin, cifar.example_bin, cifar.BIN_FILES, COLOUR.name),
    "folder": Format(folder.read, folder.example, kind=None),
    "one_bit": Format(one_bit.read, one_bit.example, own_files=one_bit.files),
    **{
        f"torchvision:{name}": Format(
            partial(torchvision_sets.read, name),
            partial(torchvision_sets.example, name),
            own_files=partial(torchvision_sets.files, name),
        )
        for name in torchvision_sets.NAMES
    },
}


# Where the labels of the images of a format are, by the format of the images. They are read as
# uint8 (N,) for each split, in the order of its images.
LABEL_FORMATS = {
    "amat": Format(
        mnist_labels.read_static, mnist_labels.example_static, mnist_labels.STATIC_FILES
    ),
    "idx": Format(mnist_labels.read, mnist_labels.example, mnist_labels.FILES),
    "silhouettes_mat": _together(matlab.read_silhouette_labels, matlab.example_silhouette_labels),
    "lake_npz": _together(omniglot.read_lake_npz_labels, omniglot.example_lake_npz),
    "lake_zip": _together(
        omniglot.read_lake_zip_labels, omniglot.example_lake_zip, omniglot.ZIP_FILES
    ),
}


def files_of(spec: dict) -> dict[str, dict]:
    """Return the raw files of a block of `datasets:` by key, with paths, urls and checksums."""
    own = FORMATS[spec["format"]].own_files
    return spec["files"] if own is None else own(spec)


def read(spec: dict, raw: Raw) -> Splits:
    """Read the splits in the raw files. Raises VlaeError unless they are as `spec` says."""
    if spec["format"] not in FORMATS:
        raise VlaeError(f"no format {spec['format']!r}; there are {', '.join(FORMATS)}")
    return FORMATS[spec["format"]].read(raw, spec)
