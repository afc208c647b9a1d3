"""Images side by side in a picture."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.errors import VlaeError
from vlae.images import BINARY_IMAGE
from vlae.storage.write import write_atomically

WIDEST = 10  # images in a row, where several groups stand below each other
GAP = 2  # pixels between two images
BETWEEN = 0.5  # the grey between images, which are 0 (black) to 1


def save_grid(path: Path | str, *groups: np.ndarray | Tensor) -> None:
    """Write images as a png.

    A group is (n, 784), (n, 28, 28) or (n, 1, 28, 28) of binary images, or (n, 3, H, W) of colour
    ones: floats 0 to 1, or bytes (colour ones 0 to 255). A single group is drawn as a square. Of
    several, all of one size and number, each row of one stands above the same row of the next, so
    that image i is below image i.

    Raises ValueError for groups that do not go together or are no images, and VlaeError for a
    path that is no png or cannot be written.
    """
    from torchvision.utils import make_grid, save_image

    check_path(Path(path))
    images = [_as_images(group) for group in groups]
    if not images or len({group.shape for group in images}) > 1:
        shapes = ", ".join(str(tuple(group.shape)) for group in images)
        raise ValueError(f"groups of one size and number are needed, not {shapes or 'none'}")
    columns = math.ceil(math.sqrt(len(images[0]))) if len(images) == 1 else WIDEST
    columns = min(columns, len(images[0]))
    grid = make_grid(_in_rows(images, columns), nrow=columns, padding=GAP, pad_value=BETWEEN)
    write_atomically(Path(path), partial(save_image, grid, format="png"))


def check_path(path: Path) -> None:
    """Raise VlaeError unless a picture may be called so."""
    if path.suffix.lower() != ".png":
        raise VlaeError(f"{path}: the name of a picture must end in .png")


def _in_rows(groups: list[Tensor], columns: int) -> Tensor:
    """The images of all groups as they follow each other in a grid: a row of each in turn."""
    if len(groups) == 1:
        return groups[0]
    missing = -len(groups[0]) % columns
    if missing:
        empty = torch.full((missing, *groups[0].shape[1:]), BETWEEN)
        groups = [torch.cat([group, empty]) for group in groups]
    rows = [group.split(columns) for group in groups]
    return torch.cat([row for same_row in zip(*rows, strict=True) for row in same_row])


def _as_images(group: np.ndarray | Tensor) -> Tensor:
    """Float (n, channels, H, W) of 0 to 1."""
    x = torch.as_tensor(group).detach().cpu()
    if x.ndim == 2 and x.shape[1] == math.prod(BINARY_IMAGE):
        x = x.reshape(-1, 1, *BINARY_IMAGE)
    elif x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.numel():
        raise ValueError(f"{tuple(group.shape)} is no shape of images")
    whole = 255 if x.dtype == torch.uint8 and (x.shape[1] == 3 or x.max() > 1) else 1
    x = x.float() / whole
    if not ((x >= 0) & (x <= 1)).all():  # NaN, and a network's input from -1 to 1
        raise ValueError("the values of images must be 0 to 1, or bytes")
    return x
