"""Images as PNG files within the page: grids of which the style sheet shows single cells."""

import hashlib
import io
from base64 import b64encode
from dataclasses import dataclass
from math import ceil

import numpy as np

from vlae.report.figures.image_grids import compose_grid

SIDE = 10  # cells in a row of a grid


@dataclass(frozen=True)
class Sprite:
    """A grid of images of one size, `rows` times SIDE cells with lines of one pixel between.

    key: a name that depends on the content. side: width and height of an image in pixels. size:
    width and height of the grid.
    """

    key: str
    uri: str
    count: int
    side: int
    size: tuple[int, int]


def sprite(images: np.ndarray) -> Sprite | None:
    """Return uint8 images, bits (n, h, w) or colours (n, 3, h, w), as a grid; None without any."""
    from PIL import Image

    if not len(images):
        return None
    grid = compose_grid(images, SIDE, ceil(len(images) / SIDE))
    file = io.BytesIO()
    Image.fromarray(grid).save(file, "PNG", optimize=True)
    key = hashlib.sha256(grid.tobytes()).hexdigest()[:12]
    size = (grid.shape[1], grid.shape[0])
    return Sprite(key, png_uri(file.getvalue()), len(images), images.shape[-1], size)


def png_uri(content: bytes) -> str:
    """Return the content of a PNG file as an address that loads nothing."""
    return f"data:image/png;base64,{b64encode(content).decode()}"
