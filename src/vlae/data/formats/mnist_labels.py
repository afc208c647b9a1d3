"""Reads the labels of MNIST's images, in the order of its grey or of Larochelle's binary images.

Larochelle's files are not in MNIST's order and have no labels. The 60,000 training and validation
images are mixed, and the test images are sorted by digit. The bits of an image were drawn from
Bernoulli(grey / 255). So the grey image under which they are most probable is the one that they
were drawn from: it is more probable than any other by some 100 nats. A few images of thin strokes
are nearly the same; those that claim the same grey image are assigned one to one.
"""

from pathlib import Path

import numpy as np

from vlae.data.formats.amat import read_amat, write_amat
from vlae.data.formats.idx import read_idx, read_idx_labels, write_idx
from vlae.data.formats.splits import Counts, Splits, noise
from vlae.errors import VlaeError

FILES = ("labels_train", "labels_test")
STATIC_FILES = ("train", "valid", "test", "grey_train", "grey_test", *FILES)
AT_ONCE = 500  # images compared together
CONTESTED = 0.01  # largest fraction of images that may claim the same grey image as another


def drawn_from(bits: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Return the index (N,) of the grey image that each image was drawn from, a permutation.

    bits: uint8 (N, 28, 28) of 0 and 1. grey: uint8 (N, 28, 28).
    Raises ValueError unless there are as many grey images, and nearly all of them are the most
    probable origin of exactly one image.
    """
    if len(bits) != len(grey):
        raise ValueError(f"{len(bits):,} images cannot be drawn from {len(grey):,} grey ones")
    ink = bits.reshape(len(bits), -1).astype(np.float32)
    share = (grey.reshape(len(grey), -1).astype(np.float32) + 0.5) / 256  # not 0 or 1
    weights, empty = np.log(share) - np.log1p(-share), np.log1p(-share).sum(1)
    order = np.empty(len(bits), np.int64)
    for start in range(0, len(bits), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        order[part] = (ink[part] @ weights.T + empty).argmax(1)
    claims = np.bincount(order, minlength=len(grey))
    contested = np.flatnonzero(claims[order] > 1)
    if len(contested) > CONTESTED * len(bits):
        raise ValueError(f"{len(contested):,} images have no grey image of their own")
    from scipy.optimize import linear_sum_assignment

    free = np.flatnonzero(claims != 1)
    log_likelihood = ink[contested] @ weights[free].T + empty[free]
    rows, columns = linear_sum_assignment(log_likelihood, maximize=True)
    order[contested[rows]] = free[columns]
    return order


def read(raw: dict[str, Path], spec: dict) -> Splits:
    """Read the labels of the grey images: split -> uint8 (N,).

    The last training images are the validation set. Raises VlaeError unless the files hold labels
    for exactly the images of spec["splits"].
    """
    counts = spec["splits"]
    train = read_idx_labels(raw["labels_train"], counts["train"] + counts["valid"])
    test = read_idx_labels(raw["labels_test"], counts["test"])
    return {"train": train[: counts["train"]], "valid": train[counts["train"] :], "test": test}


def read_static(raw: dict[str, Path], spec: dict) -> Splits:
    """Read the labels of Larochelle's binary images: split -> uint8 (N,), in their order.

    This takes minutes, because each image is compared with all grey images. Raises VlaeError
    unless the files hold the images of spec["splits"], their grey images and the labels of those.
    """
    counts, labels = spec["splits"], read(raw, spec)
    bits = {split: read_amat(raw[split], counts[split]) for split in counts}
    found = {}
    for part, splits in (("train", ("train", "valid")), ("test", ("test",))):
        path = raw[f"grey_{part}"]
        together = np.concatenate([bits[split] for split in splits])
        grey = read_idx(path, len(together))
        try:
            order = drawn_from(together, grey)
        except ValueError as error:
            raise VlaeError(f"{path}: {error}") from None
        found[part] = np.concatenate([labels[split] for split in splits])[order]
    train, valid = np.split(found["train"], [counts["train"]])
    return {"train": train, "valid": valid, "test": found["test"]}


def example(raw: dict[str, Path], spec: dict) -> Counts:
    """Write small files of labels; return their counts."""
    for key, count in (("labels_train", 8), ("labels_test", 4)):
        write_idx(raw[key], (np.arange(count) % 5).astype(np.uint8))
    return {"train": 5, "valid": 3, "test": 4}


def example_static(raw: dict[str, Path], spec: dict) -> Counts:
    """Write small files of images in reverse order, and of their labels; return their counts."""
    counts, grey = example(raw, spec), {"train": noise(8, 28, 256), "test": noise(4, 28, 256)}
    for part, images in grey.items():
        write_idx(raw[f"grey_{part}"], images)
    bits = {part: (images[::-1] >= 128).astype(np.uint8) for part, images in grey.items()}
    write_amat(raw["train"], bits["train"][:5])
    write_amat(raw["valid"], bits["train"][5:])
    write_amat(raw["test"], bits["test"])
    return counts
