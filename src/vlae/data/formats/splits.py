"""The splits of a data set, as every format returns them, and helpers to create them."""

import hashlib

import numpy as np

# Burda et al. shuffle with numpy's RandomState before they hold images out. RandomState is frozen,
# so every version of numpy gives the same permutation.
SHUFFLE_SEED = 123

Splits = dict[str, np.ndarray]  # train, valid, test, and their labels if the data set has any
Counts = dict[str, int]  # numbers of images in train, valid and test


def shuffled(images: np.ndarray) -> np.ndarray:
    """Return the images (N, ...) in a fixed shuffled order."""
    return images[np.random.RandomState(SHUFFLE_SEED).permutation(len(images))]


def hold_out(images: np.ndarray, valid: int) -> Splits:
    """Shuffle the images; the last `valid` become the validation set, the others train."""
    mixed = shuffled(images)
    return {"train": mixed[:-valid], "valid": mixed[-valid:]}


def noise(count: int, side: int, high: int) -> np.ndarray:
    """Return fixed noise, uint8 (count, side, side) with values below `high`, a power of 2."""
    content = hashlib.shake_256(f"{count} {side}".encode()).digest(count * side * side)
    return np.frombuffer(content, np.uint8).reshape(count, side, side) & (high - 1)
