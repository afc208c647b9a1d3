"""Writes images as a grid in one png file."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.errors import VlaeError
from vlae.images import BINARY_IMAGE
from vlae.storage.write import write_atomically

WIDEST = 10  # images in a row, if there are several groups
GAP = 2  # pixels between two images
BETWEEN = 0.5  # grey level between images: 0 is black, 1 is white


def save_grid(path: Path | str, *groups: np.ndarray | Tensor) -> None:
    """Write groups of images as a grid in a png file.

    A group has binary images (n, 784), (n, 28, 28) or (n, 1, 28, 28), or colour images
    (n, 3, H, W). Values are floats 0 to 1 or bytes; the bytes of colour images are 0 to 255. A
    single group is drawn as a square. With several groups, image i of each stands below image i of
    the group before; all need the same shape.

    Raises ValueError for groups of different shapes or that are not images, and VlaeError if the
    path does not end in .png or cannot be written.
    """
    from torchvision.utils import make_grid, save_image

    check_path(Path(path))
    images = [_as_images(group) for group in groups]
    if not images or len({group.shape for group in images}) > 1:
        shapes = ", ".join(str(tuple(group.shape)) for group in images)
        raise ValueError(f"groups of the same shape are needed, not {shapes or 'none'}")
    columns = math.ceil(math.sqrt(len(images[0]))) if len(images) == 1 else WIDEST
    columns = min(columns, len(images[0]))
    grid = make_grid(_in_rows(images, columns), nrow=columns, padding=GAP, pad_value=BETWEEN)
    write_atomically(Path(path), partial(save_image, grid, format="png"))


def check_path(path: Path) -> None:
    """Raise VlaeError unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise VlaeError(f"{path}: the name of a picture must end in .png")


def _in_rows(groups: list[Tensor], columns: int) -> Tensor:
    """Return the images of all groups in the order of the grid: one row of each group in turn."""
    if len(groups) == 1:
        return groups[0]
    missing = -len(groups[0]) % columns
    if missing:
        empty = torch.full((missing, *groups[0].shape[1:]), BETWEEN)
        groups = [torch.cat([group, empty]) for group in groups]
    rows = [group.split(columns) for group in groups]
    return torch.cat([row for same_row in zip(*rows, strict=True) for row in same_row])


def _as_images(group: np.ndarray | Tensor) -> Tensor:
    """Convert a group to float (n, channels, H, W), 0 to 1."""
    x = torch.as_tensor(group).detach().cpu()
    if x.ndim == 2 and x.shape[1] == math.prod(BINARY_IMAGE):
        x = x.reshape(-1, 1, *BINARY_IMAGE)
    elif x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.numel():
        raise ValueError(f"{tuple(group.shape)} is not the shape of images")
    whole = 255 if x.dtype == torch.uint8 and (x.shape[1] == 3 or x.max() > 1) else 1
    x = x.float() / whole
    if not ((x >= 0) & (x <= 1)).all():  # also catches NaN, and network input in [-1, 1]
        raise ValueError("the values of images must be 0 to 1, or bytes")
    return x
