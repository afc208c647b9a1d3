"""Kinds of images: their numbers as a data set stores them, and as the models see them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlae.units import BITS_PER_DIM, COLOUR_IMAGE, NATS, Unit

if TYPE_CHECKING:  # drawing a figure does without PyTorch
    from torch import Tensor

BINARY_IMAGE = (28, 28)  # numbers of a binary image: height, width
BINARIZATIONS = ("fixed", "dynamic")


@dataclass(frozen=True)
class ImageKind:
    """The properties of a data set's images that other code depends on.

    name: "binary" or "colour"; models, default settings and tables are chosen by it.
    binarization: "fixed" where bits are stored; "dynamic" where grey values are stored, of which
        bits are drawn with probability grey / 255 (section 4.1); "none" where the stored numbers
        themselves are modelled.
    shape: of a stored image, uint8, (H, W) or (channels, H, W).
    largest: the largest number that may be stored.
    levels: how many values a modelled number may have.
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
        """Nats an image of a model that gives all values the same probability."""
        return math.prod(self.shape) * math.log(self.levels)


FIXED = ImageKind("binary", "fixed", BINARY_IMAGE, largest=1, levels=2, unit=NATS)
DYNAMIC = ImageKind("binary", "dynamic", BINARY_IMAGE, largest=255, levels=2, unit=NATS)
COLOUR = ImageKind("colour", "none", COLOUR_IMAGE, largest=255, levels=256, unit=BITS_PER_DIM)
KINDS = (FIXED, DYNAMIC, COLOUR)


def image_kind(dataset: dict) -> ImageKind:
    """The kind of a block of `datasets:` in params.yaml, by its `kind` and `binarization`."""
    wanted = dataset["kind"], dataset.get("binarization", "none")
    return next(kind for kind in KINDS if (kind.name, kind.binarization) == wanted)


def recorded_kind(shape: tuple[int, ...]) -> ImageKind | None:
    """The kind of recorded images of this shape, as drawn by a model: bits or colour values."""
    return next((kind for kind in (FIXED, COLOUR) if kind.shape == shape), None)


def scaled(values: "Tensor") -> "Tensor":
    """Numbers 0 to 255 of any type -> float in [-1, 1]; double stays double."""
    values = values if values.is_floating_point() else values.float()
    return values / 127.5 - 1


def unscaled(x: "Tensor") -> "Tensor":
    """The inverse: in [-1, 1] -> uint8 numbers 0 to 255, the nearest ones."""
    return ((x + 1) * 127.5).round().clamp(0, 255).byte()
