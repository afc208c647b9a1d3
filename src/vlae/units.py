"""Units of likelihood: nats everywhere in the code, bits per dimension where they are reported."""

import math


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats of an image of so many numbers (3,072 for CIFAR-10) as bits of each of them."""
    return nats / dimensions / math.log(2)
