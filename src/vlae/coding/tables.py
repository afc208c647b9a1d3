"""exp, the logistic function and the normal distribution as tables.

The standard library's exp and erfc may differ between machines by a rounding error of a double.
No entry lies so close to the middle between two roundings that this could change it
(tests/coding/test_tables.py), so the tables are the same everywhere. Arguments are values of
vlae.coding.fixed_point, multiples of 2^-12.
"""

import math
from functools import cache

import torch
from torch import Tensor

VALUE_BITS = 12  # of a value behind the binary point
STEPS = 2**VALUE_BITS  # of an argument, per unit
PROBABILITY_BITS = 24  # precision of the entropy coder's probabilities
FINEST = 2.0**-PROBABILITY_BITS
LOG_STD = (-8, 8)  # smallest and largest log standard deviation
NORMAL_RANGE, NORMAL_STEPS = 8, 1024  # the table of the normal distribution: -8..8, 1024 a unit
NORMAL_UNIT = 2.0**-28


def nearest(value: float) -> int:
    """Return the nearest integer, half up."""
    return math.floor(value + 0.5)


@cache
def exp_table() -> Tensor:
    """exp(-i 2^-12) in multiples of 2^-12, for i = 0, 1, ... until it is 0."""
    last = math.ceil(math.log(2 * STEPS) * STEPS) + 1
    entries = [nearest(STEPS * math.exp(-i / STEPS)) / STEPS for i in range(last + 1)]
    return torch.tensor(entries, dtype=torch.float64)


def exp_of_non_positive(x: Tensor) -> Tensor:
    """Return exp(x) for x <= 0, both multiples of 2^-12, in place."""
    table = exp_table()
    index = x.mul(-STEPS).clamp_(max=len(table) - 1).long()
    return x.copy_(table[index])


@cache
def precision_table() -> Tensor:
    """exp(-s), the reciprocal of a standard deviation, in multiples of 2^-12, for every log
    standard deviation s within LOG_STD."""
    low, high = (bound * STEPS for bound in LOG_STD)
    entries = [nearest(STEPS * math.exp(-i / STEPS)) / STEPS for i in range(low, high + 1)]
    return torch.tensor(entries, dtype=torch.float64)


def reciprocal_std(log_std: Tensor) -> Tensor:
    """Return exp(-log_std), clamped to LOG_STD, in multiples of 2^-12."""
    low, high = (bound * STEPS for bound in LOG_STD)
    return precision_table()[log_std.mul(STEPS).clamp(low, high).long() - low]


@cache
def logistic_table() -> Tensor:
    """1 / (1 + exp(-i 2^-12)) in multiples of 2^-24, for i = 0, 1, ... until it is 1 - 2^-24."""
    last = math.ceil(math.log(1 / FINEST) * STEPS) + 1
    entries = [
        min(nearest(1 / (FINEST * (1 + math.exp(-i / STEPS)))), 2**PROBABILITY_BITS - 1) * FINEST
        for i in range(last + 1)
    ]
    return torch.tensor(entries, dtype=torch.float64)


def logistic(logits: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-logits)) in multiples of 2^-24, never 0 or 1."""
    table = logistic_table()
    upper = table[logits.abs().mul(STEPS).clamp(max=len(table) - 1).long()]
    return torch.where(logits < 0, 1 - upper, upper)


@cache
def normal_table() -> Tensor:
    """The distribution function of N(0, 1) from -NORMAL_RANGE to NORMAL_RANGE and one step beyond,
    in multiples of NORMAL_UNIT."""
    last = NORMAL_RANGE * NORMAL_STEPS
    entries = [
        nearest(math.erfc(-i / NORMAL_STEPS / math.sqrt(2)) / 2 / NORMAL_UNIT)
        for i in range(-last, last + 2)
    ]
    return torch.tensor(entries, dtype=torch.float64) * NORMAL_UNIT


def normal_distribution(x: Tensor) -> Tensor:
    """Return P(N(0, 1) <= x), exactly the same everywhere: interpolated between table entries.

    x: multiples of 2^-24, at most 2^12 in absolute value.
    """
    table = normal_table()
    position = (x.clamp(-NORMAL_RANGE, NORMAL_RANGE) + NORMAL_RANGE) * NORMAL_STEPS
    index = position.long()
    below = table[index]
    return below + (table[index + 1] - below) * (position - index)
