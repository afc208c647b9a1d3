"""Cached features of images that are being drawn, with a border of zeros around each image."""

import torch
from torch import Tensor

ABOVE, BESIDE = 2, 1  # rows and columns of the border: the farthest that any kernel reaches


class Grid:
    """Maps pixels to rows of cached features (images * places, channels).

    The places of an image are its pixels in raster order, with ABOVE rows of zeros before them
    and BESIDE columns of zeros on either side. A row of the features is one pixel of one image.
    """

    def __init__(self, images: int, height: int, width: int, device: torch.device) -> None:
        self.height, self.width = height, width
        self.pitch = width + 2 * BESIDE
        self.places = (height + ABOVE) * self.pitch
        self.images, self.starts = images, torch.arange(images, device=device) * self.places

    def rows(self, pixels: Tensor) -> Tensor:
        """Return the rows (n * images,) of pixels (2, n) in every image, ordered by pixel."""
        place = (pixels[0] + ABOVE) * self.pitch + pixels[1] + BESIDE
        return (place.unsqueeze(1) + self.starts).flatten()

    def taps(self, offsets: list[tuple[int, int]]) -> Tensor:
        """Return the distances from a pixel's row to the rows of the pixels at `offsets`.

        offsets: (rows down, columns right).
        """
        taps = [down * self.pitch + right for down, right in offsets]
        return torch.tensor(taps, device=self.starts.device)

    def new(self, channels: int, like: Tensor) -> Tensor:
        """Return an empty cache: zeros (images * places, channels), dtype and device of `like`."""
        return like.new_zeros(self.images * self.places, channels)

    def keep(self, values: Tensor) -> Tensor:
        """Return values (images, channels, height, width) as cached features."""
        cached = self.new(values.shape[1], values)
        padded = cached.view(self.images, -1, self.pitch, values.shape[1])
        padded[:, ABOVE:, BESIDE:-BESIDE] = values.permute(0, 2, 3, 1)
        return cached


def window(kept: Tensor, rows: Tensor, taps: Tensor) -> Tensor:
    """Return the features (n, taps * channels) that a kernel sees from `rows` (n,), tap by tap."""
    around = (rows.unsqueeze(1) + taps).flatten()
    return kept.index_select(0, around).view(len(rows), len(taps) * kept.shape[1])
