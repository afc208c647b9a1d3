"""Divides an evaluation into blocks of test images, each saved when it is computed.

An interrupted evaluation continues with the missing blocks. A shard is a selection of blocks.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae.errors import one_line
from vlae.evaluation.likelihood import VALUES
from vlae.storage.read import read_npz

logger = logging.getLogger(__name__)

BLOCK = 250  # test images of a block
DEEP_BLOCK = 8  # test images of a deep block: with K = 64, K' = 4096 the work of two first blocks
DRAW_BLOCK = 1000  # test images of a block in a further binarization


@dataclass(frozen=True)
class Block:
    """Test images that are estimated and saved together.

    name: the name of the file, without ending.
    images: indices of the test images.
    samples: importance samples of each image.
    key: what the estimates depend on, apart from the checkpoint, the data and the seeds.
    draw: seed of a further binarization of the test set; None for the usual one.
    most: limit of the samples of an image whose weights need more than `samples`; 0: no image
        gets more.
    """

    name: str
    images: list[int]
    samples: int
    key: dict
    draw: int | None = None
    most: int = 0


def first_blocks(images: int, samples: int, most: int) -> list[Block]:
    """Return the blocks of all test images, in order."""
    key = {"samples": samples, "block": BLOCK, "most": most}
    blocks = []
    for start in range(0, images, BLOCK):
        numbers = list(range(start, min(start + BLOCK, images)))
        name = f"images-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, key, most=most))
    return blocks


def deep_blocks(index: list[int], samples: int, most: int) -> list[Block]:
    """Return the blocks of the deep level, in the order drawn; the key contains the indices."""
    blocks = []
    for start in range(0, len(index), DEEP_BLOCK):
        numbers = index[start : start + DEEP_BLOCK]
        name = f"deep-{start:05d}-{start + len(numbers):05d}"
        key = {"samples": samples, "images": numbers, "most": most}
        blocks.append(Block(name, numbers, samples, key, most=most))
    return blocks


def draw_blocks(images: int, samples: int, seed: int) -> list[Block]:
    """Return the blocks of all test images in the binarization of seed `seed`."""
    blocks = []
    for start in range(0, images, DRAW_BLOCK):
        numbers = list(range(start, min(start + DRAW_BLOCK, images)))
        name = f"draw-{seed}-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, {"samples": samples, "draw": seed}, seed))
    return blocks


def shares(work: list[Block], count: int) -> list[list[Block]]:
    """Divide blocks into `count` shares of about the same work.

    The largest remaining block always goes to the share with the least work.
    """
    found: list[list[Block]] = [[] for _ in range(count)]
    sizes = [0] * count
    for block in sorted(work, key=_size, reverse=True):
        least = sizes.index(min(sizes))
        found[least].append(block)
        sizes[least] += _size(block)
    return found


def _size(block: Block) -> int:
    return len(block.images) * block.samples


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate the arrays of several blocks."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def read_block(
    path: Path, belongs_to: dict, images: int, points: int
) -> dict[str, np.ndarray] | None:
    """Read a block of `images` images, with `points` points in the curve of each.

    Returns None if there is no such file, if it was computed from other things than `belongs_to`
    says, or if it cannot be read.
    """
    shapes = dict.fromkeys(VALUES, (images,)) | {"curve": (images, points)}
    try:
        with open(path, "rb") as file:
            block = read_npz(file)
        about = json.loads(str(block["about"]))
        if not isinstance(about, dict):
            raise ValueError("it has no description")
        if any(about.get(key) != value for key, value in belongs_to.items()):
            return None
        if {key: block[key].shape for key in block if key != "about"} != shapes:
            raise ValueError("it does not have the values of these images")
        if not all(block[key].dtype.kind == "f" for key in shapes):
            raise ValueError("its values are not real numbers")
        return block
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        logger.info("%s cannot be read (%s) and is computed again", path, one_line(error))
        return None
