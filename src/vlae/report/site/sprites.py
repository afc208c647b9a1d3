"""Images within the page: figures, and grids of which the style sheet shows single cells."""

import hashlib
import io
from base64 import b64encode
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlae.report.figures.image_grids import compose_grid

if TYPE_CHECKING:
    from PIL.Image import Image

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
    key = hashlib.sha256(grid.tobytes()).hexdigest()[:12]
    size = (grid.shape[1], grid.shape[0])
    uri = _uri(Image.fromarray(grid), "PNG", optimize=True)
    return Sprite(key, uri, len(images), images.shape[-1], size)


def figure(path: Path) -> tuple[str, tuple[int, int]]:
    """Return a drawn figure as an address, and its width and height.

    Every pixel is the file's. Lossless WebP takes two thirds of the space of its PNG.
    """
    from PIL import Image

    with Image.open(path) as image:
        flat = image.convert("RGB")
    return _uri(flat, "WEBP", lossless=True, method=1, quality=0), flat.size


def _uri(image: "Image", kind: str, **options: Any) -> str:
    """Return an image as an address that loads nothing."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"
