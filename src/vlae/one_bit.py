"""A toy distribution of binary images with one global bit, of which everything is known exactly.

Each image has one bit b. Every fourth row, 0, 4, …, 24, shows it: the pixels 0, 4, …, 24 are b,
the others 0. The pixels of any other row are all equal, and that value is a coin toss. So an image
has 1 + 21 fair bits. A local decoder copies a row from its first pixel. It can copy b only if it
sees at least 4 pixels far; otherwise the code has to hold b, and nothing else (section 2).
"""

import hashlib
import math

import numpy as np

SIDE = 28  # pixels
SPACING = 4  # pixels between two pixels that show the global bit
BITS = 1 + SIDE - SIDE // SPACING  # fair bits of an image
COPIES = (SIDE // SPACING) ** 2  # pixels that show the global bit


def draw(name: str, count: int) -> np.ndarray:
    """Return `count` images, uint8 (count, 28, 28) of 0 and 1; `name` is the seed."""
    stream = hashlib.shake_256(f"one bit {name}".encode()).digest(count * (1 + SIDE))
    coins = np.frombuffer(stream, np.uint8).reshape(count, 1 + SIDE) & 1
    images = np.repeat(coins[:, 1:, None], SIDE, axis=2)
    images[:, ::SPACING] = 0
    images[:, ::SPACING, ::SPACING] = coins[:, :1, None]
    return images


def exact_nll() -> float:
    """Return -log p(x) of every image, nats."""
    return BITS * math.log(2)


def exact_kl(reach: int) -> float:
    """Return KL(q(z|x) || p(z)), nats, of the shortest code, by how far the decoder sees.

    reach: 0 for a factorized decoder, which leaves all bits to the code.
    """
    if reach == 0:
        return exact_nll()
    return math.log(2) if reach < SPACING else 0.0


def gaussian_code(reach: int) -> tuple[float, float]:
    """Return -ELBO and KL, nats, of the best code with Gaussian q(z|x) and p(z).

    One dimension is best, with p(z) = N(0, 1): q(z|x) = N(m, s^2) for one value of the bit and
    N(-m, s^2) for the other. For a separation t = m / s the best s^2 is 1 / (1 + t^2), and the KL
    is log(1 + t^2) / 2. The decoder pays -log p(b|z) at each of the pixels that show the bit. A
    larger t lowers that and raises the KL.

    reach: at least 1. Raises ValueError for 0, where the best code of 22 bits is not known.
    """
    from scipy.optimize import minimize_scalar

    if reach < 1:
        raise ValueError("the best Gaussian code is known for one bit only")
    if reach >= SPACING:
        return exact_nll(), 0.0

    def cost(separation: float) -> float:
        return _kl(separation) + COPIES * _uncertainty(separation)

    best = minimize_scalar(cost, bounds=(1, 10), method="bounded")
    return float((BITS - 1) * math.log(2) + best.fun), _kl(best.x)


def _kl(separation: float) -> float:
    return 0.5 * math.log1p(separation**2)


def _uncertainty(separation: float) -> float:
    """Return E[-log p(b|z)], nats, for z ~ N(+-separation, 1), the sign being that of b."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(199)
    z = separation + nodes  # of b = 1, whose log odds are 2 separation z
    return float((weights * np.logaddexp(0, -2 * separation * z)).sum() / weights.sum())
