"""A toy distribution of binary images with one global bit, of which everything is known exactly.

Each image has one bit b. Every fourth row, 0, 4, …, 24, shows it: the pixels 0, 4, …, 24 are b,
the others 0. The pixels of any other row are all equal, and that value is a coin toss. So an image
has 1 + 21 fair bits. A local decoder copies a row from its first pixel. It can copy b only if it
sees at least 4 pixels far; otherwise the code has to hold b, and nothing else (section 2).
"""

import hashlib
import math

import numpy as np

SIDE = 28  # pixels
SPACING = 4  # pixels between two pixels that show the global bit
BITS = 1 + SIDE - SIDE // SPACING  # fair bits of an image


def draw(name: str, count: int) -> np.ndarray:
    """Return `count` images, uint8 (count, 28, 28) of 0 and 1; `name` is the seed."""
    stream = hashlib.shake_256(f"one bit {name}".encode()).digest(count * (1 + SIDE))
    coins = np.frombuffer(stream, np.uint8).reshape(count, 1 + SIDE) & 1
    images = np.repeat(coins[:, 1:, None], SIDE, axis=2)
    images[:, ::SPACING] = 0
    images[:, ::SPACING, ::SPACING] = coins[:, :1, None]
    return images


def exact_nll() -> float:
    """Return -log p(x) of every image, nats."""
    return BITS * math.log(2)


def exact_kl(reach: int) -> float:
    """Return KL(q(z|x) || p(z)), nats, of the shortest code, by how far the decoder sees.

    reach: 0 for a factorized decoder, which leaves all bits to the code.
    """
    if reach == 0:
        return exact_nll()
    return math.log(2) if reach < SPACING else 0.0
