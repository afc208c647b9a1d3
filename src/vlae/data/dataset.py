"""Reads and checks a prepared data set, data/NAME.npz."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vlae.data.formats.cifar import CLASSES
from vlae.errors import VlaeError
from vlae.images import ImageKind
from vlae.storage import paths
from vlae.storage.read import read_npz

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Dataset:
    """The images of a data set.

    train, valid, test: uint8 (N, *kind.shape), values 0 to kind.largest.
    labels: split -> uint8 (N,); empty if the data set has no labels.
    sha256: hash of the prepared file.
    """

    name: str
    kind: ImageKind
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    sha256: str
    labels: dict[str, np.ndarray]

    @cached_property
    def training_sha256(self) -> str:
        """SHA-256 of the training and validation images, the data that a training depends on."""
        digest = hashlib.sha256()
        for name, array in (("train", self.train), ("valid", self.valid)):
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def check_trained_on(self, training: dict) -> None:
        """Raise VlaeError if the record of a training names other training images than these.

        Old records do not name their images.
        """
        if training.get("training_sha256", self.training_sha256) != self.training_sha256:
            raise VlaeError(
                f"{paths.dataset(self.name)} has other training images than those of run "
                f"{training['run']}; run `vlae fetch {self.name}`, or train the run again"
            )


def label_name(split: str) -> str:
    """Return the name of a split's labels in the prepared file."""
    return f"{split}_labels"


def array_names(arrays: Collection[str]) -> tuple[str, ...]:
    """Return the names of a prepared file's arrays in order: the splits, then any labels.

    Labels are included if `arrays` has at least one of them.
    """
    labels = tuple(label_name(split) for split in SPLITS)
    return SPLITS + labels if set(labels) & set(arrays) else SPLITS


def check_arrays(arrays: dict[str, np.ndarray], kind: ImageKind) -> None:
    """Raise ValueError unless `arrays` has exactly the three splits and either all labels or none.

    Shapes, types and values are checked (see Dataset).
    """
    names, shape = array_names(arrays), kind.shape
    if set(arrays) != set(names):
        raise ValueError(f"holds {', '.join(sorted(arrays)) or 'nothing'}, not {', '.join(names)}")
    for split in SPLITS:
        array = arrays[split]
        if array.dtype != np.uint8 or array.shape[1:] != shape or len(array) == 0:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{split} is {array.dtype} {array.shape}, not uint8 (N, {wanted})")
        if array.max() > kind.largest:
            raise ValueError(f"{split} has the value {array.max()}, so it is not binarized")
    for split in SPLITS if label_name(SPLITS[0]) in names else ():
        name, labels = label_name(split), arrays[label_name(split)]
        if not isinstance(labels, np.ndarray):
            raise ValueError(f"{name} is not an array")
        if labels.dtype != np.uint8 or labels.shape != (len(arrays[split]),):
            wanted = f"uint8 ({len(arrays[split])},)"
            raise ValueError(f"{name} is {labels.dtype} {labels.shape}, not {wanted}")
        if labels.max() >= CLASSES:
            raise ValueError(f"{name} has the value {labels.max()}, which is not a class")


def load(name: str, kind: ImageKind, root: Path = Path("data")) -> Dataset:
    """Read the prepared data set `name` from the folder `root`.

    Raises VlaeError if the file is missing or is not a prepared data set of this kind of images.
    """
    path = root / paths.dataset(name).name
    again = f"run `vlae fetch {name}`"
    try:
        # Open the file once, so that the checksum belongs to the content that is read.
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            arrays = read_npz(file)
        check_arrays(arrays, kind)
    except FileNotFoundError:
        raise VlaeError(f"{path} is missing; {again}") from None
    except (OSError, ValueError) as error:
        raise VlaeError(f"{path} cannot be used: {error}; {again} again") from None
    images = {split: arrays[split] for split in SPLITS}
    labels = {s: arrays[label_name(s)] for s in SPLITS if label_name(s) in arrays}
    return Dataset(name, kind, sha256=sha256, labels=labels, **images)
