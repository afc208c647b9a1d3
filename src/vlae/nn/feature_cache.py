"""Features of images that are being drawn, kept with a border of zeros around each image."""

import torch
from torch import Tensor

ABOVE, BESIDE = 2, 1  # rows and columns of the border: as far as any kernel here reaches


class Grid:
    """The places of pixels in kept features (images * places, channels).

    The places of an image are its pixels row by row, with ABOVE rows of zeros before them and
    BESIDE columns of zeros on either side. A row below means one sample of one pixel.
    """

    def __init__(self, images: int, height: int, width: int, device: torch.device) -> None:
        self.height, self.width = height, width
        self.pitch = width + 2 * BESIDE
        self.places = (height + ABOVE) * self.pitch
        self.images, self.starts = images, torch.arange(images, device=device) * self.places

    def rows(self, pixels: Tensor) -> Tensor:
        """Return the rows (n * images,) of pixels (2, n) of every image, pixel after pixel."""
        place = (pixels[0] + ABOVE) * self.pitch + pixels[1] + BESIDE
        return (place.unsqueeze(1) + self.starts).flatten()

    def taps(self, offsets: list[tuple[int, int]]) -> Tensor:
        """Return what to add to a pixel's row for the pixels at `offsets` (rows down, columns
        right)."""
        taps = [down * self.pitch + right for down, right in offsets]
        return torch.tensor(taps, device=self.starts.device)

    def new(self, channels: int, like: Tensor) -> Tensor:
        """No features yet: (images * places, channels), of the type of `like`."""
        return like.new_zeros(self.images * self.places, channels)

    def keep(self, values: Tensor) -> Tensor:
        """(images, channels, height, width) as kept features."""
        kept = self.new(values.shape[1], values)
        whole = kept.view(self.images, -1, self.pitch, values.shape[1])
        whole[:, ABOVE:, BESIDE:-BESIDE] = values.permute(0, 2, 3, 1)
        return kept


def window(kept: Tensor, rows: Tensor, taps: Tensor) -> Tensor:
    """The features (n, taps * channels) that a kernel sees from `rows` (n,), tap after tap."""
    around = (rows.unsqueeze(1) + taps).flatten()
    return kept.index_select(0, around).view(len(rows), len(taps) * kept.shape[1])
