"""Differences between images and their decompressions: how much shape and colour a code keeps.

They are measured on the means of blocks of 8x8 pixels. Blocks show the outline of things, but not
the texture, which a local decoder invents. Luma and chroma are

    Y = 0.299 R + 0.587 G + 0.114 B,   Cb = (B - Y) / 1.772,   Cr = (R - Y) / 1.402

in levels; R, G, B and Y are 0 to 255.
"""

import numpy as np

BLOCK = 8  # side of a block in pixels
LUMA = np.array([0.299, 0.587, 0.114])
TO_YCBCR = np.stack(
    [LUMA, (np.array([0.0, 0.0, 1.0]) - LUMA) / 1.772, (np.array([1.0, 0.0, 0.0]) - LUMA) / 1.402]
)
KINDS = {"structure": slice(0, 1), "colour": slice(1, 3)}  # indices into Y, Cb, Cr


def block_means(images: np.ndarray) -> np.ndarray:
    """Convert images, uint8 (n, 3, 8 h, 8 w), to Y, Cb, Cr of their blocks, float (n, 3, h w)."""
    n, _, height, width = images.shape
    blocks = images.reshape(n, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    means = blocks.mean((3, 5), dtype=np.float64).reshape(n, 3, -1)
    return np.einsum("yc,ncb->nyb", TO_YCBCR, means)


def errors(originals: np.ndarray, decompressions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the root mean square differences over the blocks of each image, in levels.

    "structure" (n,) is the difference in luma, "colour" (n,) that in both chromas.
    """
    difference = block_means(decompressions) - block_means(originals)
    return {
        kind: np.sqrt(np.square(difference[:, channels]).mean((1, 2)))
        for kind, channels in KINDS.items()
    }


def errors_of_others(originals: np.ndarray, decompressions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean differences (n,) to the decompressions of all other images, as `errors`.

    They show how similar any two images are, without a code. Raises ValueError for a single image.
    """
    if len(originals) < 2:
        raise ValueError("there is only one image")
    found = {}
    of_originals, of_others = block_means(originals), block_means(decompressions)
    for kind, channels in KINDS.items():
        a, b = (x[:, channels].reshape(len(x), -1) for x in (of_originals, of_others))
        each = [np.sqrt(np.square(b - one).mean(1)) for one in a]
        found[kind] = np.array(
            [(row.sum() - row[i]) / (len(row) - 1) for i, row in enumerate(each)]
        )
    return found
