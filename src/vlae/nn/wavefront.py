"""Groups of pixels that can be drawn together, given the window each pixel depends on."""

import torch
from torch import Tensor


def wavefront(context: set[tuple[int, int]], side: int) -> list[Tensor]:
    """Return the groups of pixels of a square image, in drawing order: rows and columns (2, n).

    `context`: offsets (rows down, columns right) of the pixels that a pixel depends on.
    Pixel (r, c) is drawn at step c + slope * r. The slope is the smallest for which every pixel
    of the window is drawn at an earlier step.
    """
    slope = max([1, *(dc // -dr + 1 for dr, dc in context if dr < 0)])
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    step = columns + slope * rows
    return [torch.stack(torch.where(step == t)) for t in range(int(step.max()) + 1)]
