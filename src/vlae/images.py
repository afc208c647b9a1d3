"""Kinds of images: how a data set stores them and how the models see them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlae.units import BITS_PER_DIM, COLOUR_IMAGE, NATS, Unit

if TYPE_CHECKING:  # drawing a figure does not load PyTorch
    from torch import Tensor

BINARY_IMAGE = (28, 28)  # shape of a binary image: height, width
BINARIZATIONS = ("fixed", "dynamic")


@dataclass(frozen=True)
class ImageKind:
    """The properties of a data set's images that other code depends on.

    name: "binary" or "colour"; selects models, default settings and tables.
    binarization: "fixed" if bits are stored; "dynamic" if grey values are stored, from which bits
        are drawn with probability grey / 255 (section 4.1); "none" if the stored values
        themselves are modelled.
    shape: shape of a stored image, uint8, (H, W) or (channels, H, W).
    largest: the largest value that may be stored.
    levels: number of possible values of a modelled pixel or colour.
    unit: the unit in which the paper reports likelihoods of such images.
    """

    name: str
    binarization: str
    shape: tuple[int, ...]
    largest: int
    levels: int
    unit: Unit

    @property
    def uniform_loss(self) -> float:
        """The loss, nats per image, of a model that gives all values equal probability."""
        return math.prod(self.shape) * math.log(self.levels)


FIXED = ImageKind("binary", "fixed", BINARY_IMAGE, largest=1, levels=2, unit=NATS)
DYNAMIC = ImageKind("binary", "dynamic", BINARY_IMAGE, largest=255, levels=2, unit=NATS)
COLOUR = ImageKind("colour", "none", COLOUR_IMAGE, largest=255, levels=256, unit=BITS_PER_DIM)
KINDS = (FIXED, DYNAMIC, COLOUR)


def image_kind(dataset: dict) -> ImageKind:
    """Return the kind of images of a block of `datasets:` in params.yaml.

    The block's `kind` and `binarization` determine it.
    """
    wanted = dataset["kind"], dataset.get("binarization", "none")
    return next(kind for kind in KINDS if (kind.name, kind.binarization) == wanted)


def recorded_kind(shape: tuple[int, ...]) -> ImageKind | None:
    """Return the kind of recorded images (bits or colour values) by shape; None if unknown."""
    return next((kind for kind in (FIXED, COLOUR) if kind.shape == shape), None)


def scaled(values: "Tensor") -> "Tensor":
    """Scale values 0 to 255 to [-1, 1]; integers become float32, other types stay."""
    values = values if values.is_floating_point() else values.float()
    return values / 127.5 - 1


def unscaled(x: "Tensor") -> "Tensor":
    """Invert `scaled`: values in [-1, 1] -> the nearest uint8 values 0 to 255."""
    return ((x + 1) * 127.5).round().clamp(0, 255).byte()
