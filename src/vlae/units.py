"""Units of likelihood, nats in the code and bits per dimension where they are reported, and how
many digits are shown."""

import math
from dataclasses import dataclass

COLOUR_IMAGE = (3, 32, 32)  # numbers of a colour image: colours, height, width


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats of an image of so many numbers (3,072 for CIFAR-10) as bits of each of them."""
    return nats / dimensions / math.log(2)


@dataclass(frozen=True)
class Unit:
    """A unit of likelihoods: a number of nats an image times `per_nat` is in this unit.

    `least`: the smallest difference that is worth an axis of its own.
    """

    name: str
    short: str
    per_nat: float
    least: float


NATS = Unit("nats per image", "nats", 1.0, 0.5)
BITS_PER_DIM = Unit("bits/dim", "bits/dim", bits_per_dim(1.0, math.prod(COLOUR_IMAGE)), 0.02)


def rounded(value: float | None, sign: str = "") -> str:
    """Two decimals, as the paper prints; nothing for None."""
    return "" if value is None else f"{value:{sign}.2f}"


def rounded_error(value: float | None) -> str:
    """Two digits of a small error, so that no error reads 0.00."""
    return f"{value:.2g}" if value is not None and 0 < value < 0.095 else rounded(value)
