"""The toy with one global bit: its number of bits, and which windows see the global one."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from miniature import PROJECT
from vlae import one_bit
from vlae.config.load import load_params
from vlae.data.formats.registry import read
from vlae.report.tables.information import window

PARAMS = load_params(PROJECT / "params.yaml")
RUNS = [run for run in PARAMS.runs.values() if run.dataset == "one_bit"]


def test_images_are_made_of_fair_independent_bits():
    count = 20000
    images = one_bit.draw("test", count)
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8
    rows = [row for row in range(28) if row % one_bit.SPACING]
    coins = np.stack([images[:, 0, 0], *(images[:, row, 0] for row in rows)], 1).astype(float)
    assert coins.shape[1] == one_bit.BITS
    bound = 5 / math.sqrt(count)  # five standard errors
    np.testing.assert_allclose(coins.mean(0), 0.5, atol=bound / 2)
    correlation = np.corrcoef(coins.T) - np.eye(one_bit.BITS)
    assert np.abs(correlation).max() < bound
    # The coins determine the image.
    again = np.repeat(images[:, :, :1], 28, 2)
    again[:, ::4] = 0
    again[:, ::4, ::4] = images[:, :1, :1]
    assert (again == images).all()


def test_the_seed_is_the_name():
    assert (one_bit.draw("a", 9) == one_bit.draw("a", 9)).all()
    assert (one_bit.draw("a", 9) != one_bit.draw("b", 9)).any()
    assert (one_bit.draw("a", 9)[:5] == one_bit.draw("a", 5)).all()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_exact_kl_counts_the_bits_that_no_window_shows(run):
    """The exact code holds the bits whose pixels, but for the first, see none of their copies."""
    seen = window(run.model.decoder)
    far = max((max(map(abs, offset)) for offset in seen), default=0)
    images = one_bit.draw("windows", 4000)
    hidden = 0
    for row, column in ((4, 0), (0, 4), (8, 12), (24, 24), (1, 1), (5, 27), (27, 1)):
        places = [(row + i, column + j) for i, j in seen]
        places = [(i, j) for i, j in places if 0 <= i < 28 and 0 <= j < 28]
        copies = [(images[:, i, j] == images[:, row, column]).all() for i, j in places]
        hidden += not any(copies)
    if far < one_bit.SPACING:
        assert hidden == 4 and one_bit.exact_kl(far) == math.log(2)  # only the global bit's
    else:
        assert hidden == 0 and one_bit.exact_kl(far) == 0


def test_no_other_gaussian_code_of_the_bit_is_better():
    """Any means and spreads of the two Gaussians, on a fine grid of z, cost as much or more."""
    z = np.linspace(-12, 12, 6001)

    def cost(code: np.ndarray) -> float:
        means, spreads = code[:2], np.exp(code[2:])
        kl = 0.5 * (means**2 + spreads**2 - 1 - 2 * np.log(spreads)).mean()
        log_q = -(((z - means[:, None]) / spreads[:, None]) ** 2) / 2 - np.log(spreads)[:, None]
        q = np.exp(log_q)
        q /= q.sum(1, keepdims=True)
        log_posterior = log_q - np.logaddexp(*log_q)
        return kl - 49 * (q * log_posterior).sum(1).mean()

    bound, kl = one_bit.gaussian_code(1)
    costs = [
        minimize(cost, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-9}).fun
        for start in ([1, -1, -1, -1], [2, 0, -2, -0.5], [0.3, -1.5, 0, -2])
    ]
    rest = (one_bit.BITS - 1) * math.log(2)
    assert min(costs) == pytest.approx(bound - rest, abs=1e-4)
    assert math.log(2) < kl < bound - rest  # no code holds the bit for less


def test_a_decoder_that_sees_the_copies_has_an_empty_code():
    assert one_bit.gaussian_code(4) == (one_bit.exact_nll(), 0)
    assert one_bit.exact_kl(0) == one_bit.exact_nll() == 22 * math.log(2)
    with pytest.raises(ValueError, match="one bit only"):
        one_bit.gaussian_code(0)


def test_the_data_set_draws_other_images_for_each_split():
    spec = PARAMS.dataset("one_bit")
    splits = read(spec, {})
    assert {name: len(images) for name, images in splits.items()} == spec["splits"]
    assert (splits["train"][:1000] != splits["valid"]).any(axis=(1, 2)).all()
