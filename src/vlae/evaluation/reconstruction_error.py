"""Errors of decompressions against their originals: what a code keeps of shape and colour.

Both are measured on the means of blocks of 8x8 pixels, fine enough for the outline of things
and too coarse for the texture that a local decoder makes up. Luma and chroma are

    Y = 0.299 R + 0.587 G + 0.114 B,   Cb = (B - Y) / 1.772,   Cr = (R - Y) / 1.402

in levels: R, G and B have 0 to 255, and so has Y.
"""

import numpy as np

BLOCK = 8  # pixels of a block's side
LUMA = np.array([0.299, 0.587, 0.114])
TO_YCBCR = np.stack(
    [LUMA, (np.array([0.0, 0.0, 1.0]) - LUMA) / 1.772, (np.array([1.0, 0.0, 0.0]) - LUMA) / 1.402]
)
KINDS = {"structure": slice(0, 1), "colour": slice(1, 3)}  # which of Y, Cb, Cr


def block_means(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 3, h, w), sides multiples of 8 -> Y, Cb, Cr of blocks, (n, 3, h / 8 * w / 8)."""
    n, _, height, width = images.shape
    blocks = images.reshape(n, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    means = blocks.mean((3, 5), dtype=np.float64).reshape(n, 3, -1)
    return np.einsum("yc,ncb->nyb", TO_YCBCR, means)


def errors(originals: np.ndarray, decompressions: np.ndarray) -> dict[str, np.ndarray]:
    """Return by kind, for each image (n,), the root mean square difference, in levels, over the
    blocks, of luma (structure) or of both chromas (colour)."""
    difference = block_means(decompressions) - block_means(originals)
    return {
        kind: np.sqrt(np.square(difference[:, channels]).mean((1, 2)))
        for kind, channels in KINDS.items()
    }


def errors_of_others(originals: np.ndarray, decompressions: np.ndarray) -> dict[str, np.ndarray]:
    """The same against the decompressions of all other images, the mean over those, for each
    original (n,): what an image has in common with any other, without a code of its own."""
    if len(originals) < 2:
        raise ValueError("no other image")
    found = {}
    of_originals, of_others = block_means(originals), block_means(decompressions)
    for kind, channels in KINDS.items():
        a, b = (x[:, channels].reshape(len(x), -1) for x in (of_originals, of_others))
        each = [np.sqrt(np.square(b - one).mean(1)) for one in a]
        found[kind] = np.array(
            [(row.sum() - row[i]) / (len(row) - 1) for i, row in enumerate(each)]
        )
    return found
