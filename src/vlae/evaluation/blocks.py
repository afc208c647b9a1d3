"""An evaluation cut into blocks of test images, each saved when it is done.

An interrupted evaluation goes on, and shards are nothing but a choice of blocks.
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

BLOCK = 250  # test images between two saves
DEEP_BLOCK = 8  # the same with K' samples each: at 64 and 4096 the work of two such blocks
DRAW_BLOCK = 1000  # test images of a block of another binarization


@dataclass(frozen=True)
class Block:
    """Test images that are estimated and saved together; `key`: what the file's content
    depends on beside the checkpoint, the data and the seeds. `draw`: the seed of another
    binarization of the test set than the fixed one. `most`: samples of an image whose weights need
    more than `samples`; 0: none gets more."""

    name: str
    images: list[int]
    samples: int
    key: dict
    draw: int | None = None
    most: int = 0


def first_blocks(images: int, samples: int, most: int) -> list[Block]:
    """All test images, in their order."""
    key = {"samples": samples, "block": BLOCK, "most": most}
    blocks = []
    for start in range(0, images, BLOCK):
        numbers = list(range(start, min(start + BLOCK, images)))
        name = f"images-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, key, most=most))
    return blocks


def deep_blocks(index: list[int], samples: int, most: int) -> list[Block]:
    """The images of the deep level, in the order drawn: which they are is part of the key."""
    blocks = []
    for start in range(0, len(index), DEEP_BLOCK):
        numbers = index[start : start + DEEP_BLOCK]
        name = f"deep-{start:05d}-{start + len(numbers):05d}"
        key = {"samples": samples, "images": numbers, "most": most}
        blocks.append(Block(name, numbers, samples, key, most=most))
    return blocks


def draw_blocks(images: int, samples: int, seed: int) -> list[Block]:
    """All test images in another binarization, the one of this seed."""
    blocks = []
    for start in range(0, images, DRAW_BLOCK):
        numbers = list(range(start, min(start + DRAW_BLOCK, images)))
        name = f"draw-{seed}-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, {"samples": samples, "draw": seed}, seed))
    return blocks


def shares(work: list[Block], count: int) -> list[list[Block]]:
    """Divide blocks into `count` shares of about the same work: the largest block left goes to the
    share with the least."""
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
    """The arrays of several blocks, one behind the other."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def read_block(
    path: Path, belongs_to: dict, images: int, points: int
) -> dict[str, np.ndarray] | None:
    """A block computed before from the very same things; None where there is none.

    `images` of them, and `points` in the curve of each.
    """
    shapes = dict.fromkeys(VALUES, (images,)) | {"curve": (images, points)}
    try:
        with open(path, "rb") as file:
            block = read_npz(file)
        about = json.loads(str(block["about"]))
        if not isinstance(about, dict):
            raise ValueError("no description in it")
        if any(about.get(key) != value for key, value in belongs_to.items()):
            return None
        if {key: block[key].shape for key in block if key != "about"} != shapes:
            raise ValueError("not the values of these images")
        if not all(block[key].dtype.kind == "f" for key in shapes):
            raise ValueError("values that are no real numbers")
        return block
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        logger.info("%s cannot be read (%s); computed again", path, one_line(error))
        return None
