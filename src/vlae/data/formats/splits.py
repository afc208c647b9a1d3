"""The splits of a data set, as every format returns them, and how some are made."""

import hashlib

import numpy as np

# Burda et al. shuffle before they hold images out, by numpy's RandomState, whose numbers are
# frozen: the same permutation with every version of numpy.
SHUFFLE_SEED = 123

Splits = dict[str, np.ndarray]  # train, valid, test, and their labels where there are any
Counts = dict[str, int]  # images of train, valid and test


def shuffled(images: np.ndarray) -> np.ndarray:
    """The images (N, ...) in an order that is always the same."""
    return images[np.random.RandomState(SHUFFLE_SEED).permutation(len(images))]


def hold_out(images: np.ndarray, valid: int) -> Splits:
    """The last `valid` images of a shuffle, and the others."""
    mixed = shuffled(images)
    return {"train": mixed[:-valid], "valid": mixed[-valid:]}


def noise(count: int, side: int, high: int) -> np.ndarray:
    """Fixed images, uint8 (count, side, side), of values below `high`, a power of 2."""
    content = hashlib.shake_256(f"{count} {side}".encode()).digest(count * side * side)
    return np.frombuffer(content, np.uint8).reshape(count, side, side) & (high - 1)
