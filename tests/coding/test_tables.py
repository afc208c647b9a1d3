"""The tables of the coder: right, and the same on every machine."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from vlae.coding import tables

STEPS = tables.STEPS
ERROR = 1e-14  # relative: some fifty times what a standard library's exp or erfc is off by


def arguments(table, first=0):
    return range(first, first + len(table))


@pytest.mark.parametrize(
    "units",
    [
        lambda: [STEPS * math.exp(-i / STEPS) for i in arguments(tables.exp_table())],
        lambda: [
            STEPS * math.exp(-i / STEPS)
            for i in arguments(tables.precision_table(), tables.LOG_STD[0] * STEPS)
        ],
        lambda: [
            1 / (tables.FINEST * (1 + math.exp(-i / STEPS)))
            for i in arguments(tables.logistic_table())
        ],
        lambda: [
            math.erfc(-i / tables.NORMAL_STEPS / math.sqrt(2)) / 2 / tables.NORMAL_UNIT
            for i in arguments(tables.normal_table(), -tables.NORMAL_RANGE * tables.NORMAL_STEPS)
        ],
    ],
    ids=["exp", "precision", "logistic", "normal"],
)
def test_no_entry_is_near_the_middle_of_two_roundings(units):
    for value in units():
        assert abs(value - math.floor(value) - 0.5) > ERROR * value


def test_exp():
    x = -torch.arange(0, 20 * STEPS, 7, dtype=torch.float64) / STEPS
    expected = x.exp()
    assert (tables.exp_of_non_positive(x) - expected).abs().max() <= 0.5 / STEPS


def test_reciprocal_std():
    log_std = torch.linspace(-8 * STEPS, 3 * STEPS, 1000).round().double() / STEPS
    expected = (-log_std).exp()
    assert (tables.reciprocal_std(log_std) - expected).abs().max() <= 0.5 / STEPS
    beyond = torch.tensor([-9.0, 9.0], dtype=torch.float64)
    assert tables.reciprocal_std(beyond).tolist() == pytest.approx(
        [math.exp(8), round(math.exp(-8) * STEPS) / STEPS], abs=0.5 / STEPS
    )


def test_logistic():
    logits = torch.arange(-40 * STEPS, 40 * STEPS, 11, dtype=torch.float64) / STEPS
    found = tables.logistic(logits)
    assert ((found * 2**24).frac() == 0).all()
    assert found.min() == 2.0**-24 and found.max() == 1 - 2.0**-24
    assert (found - logits.sigmoid()).abs().max() <= 2.0**-24
    assert torch.equal(tables.logistic(-logits), 1 - found)


def test_normal_distribution():
    x = np.concatenate([np.linspace(-9, 9, 100_001), [-4096, 4096]])
    x = np.round(x * 2**24) / 2**24
    found = tables.normal_distribution(torch.from_numpy(x)).numpy()
    # A quarter of the largest second derivative times the square of a step, and the rounding.
    assert np.abs(found - norm.cdf(x)).max() < 0.242 / 8 / tables.NORMAL_STEPS**2 + 2.0**-28
    assert (np.diff(found[:-2]) >= 0).all()
    assert found[-2] < 1e-8 and found[-1] > 1 - 1e-8
