"""Units of likelihood, and the number of digits shown.

The code computes in nats; likelihoods of colour images are reported in bits per dimension.
"""

import math
from dataclasses import dataclass

COLOUR_IMAGE = (3, 32, 32)  # shape of a colour image: colours, height, width


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Convert nats per image to bits per dimension; CIFAR-10 has 3,072 dimensions."""
    return nats / dimensions / math.log(2)


@dataclass(frozen=True)
class Unit:
    """A unit of likelihood. Nats per image times `per_nat` give the value in this unit.

    least: the smallest range that an axis of a figure should span, in this unit.
    """

    name: str
    short: str
    per_nat: float
    least: float


NATS = Unit("nats per image", "nats", 1.0, 0.5)
BITS_PER_DIM = Unit("bits/dim", "bits/dim", bits_per_dim(1.0, math.prod(COLOUR_IMAGE)), 0.02)


def rounded(value: float | None, sign: str = "") -> str:
    """Format a value with two decimals, as the paper does; None becomes the empty string."""
    return "" if value is None else f"{value:{sign}.2f}"


def rounded_error(value: float | None) -> str:
    """Format an error with two decimals, or two significant digits if it is below 0.095."""
    return f"{value:.2g}" if value is not None and 0 < value < 0.095 else rounded(value)
