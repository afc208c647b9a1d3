"""What the entropy coder is told, against the normal distribution itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fuzzing import cases
from vlae.coding import distributions as d
from vlae.coding.fixed_point import VALUE_UNIT, rounded

WORDS = np.random.default_rng(0).integers(1, 2**32, 2000, np.uint32)


def grid(values):
    return rounded(torch.tensor(values, dtype=torch.float64))


def test_probabilities_of_the_bins():
    mean, log_std = grid([0.3, -2.0]), grid([-1.0, 0.4])
    found = d.posterior_bins(mean, log_std)
    for i in range(2):
        edges = (found.first[i].item() + np.arange(d.POSTERIOR_BINS + 1)) * d.BIN
        cdf = norm.cdf(edges, mean[i].item(), np.exp(log_std[i].item()))
        cdf[0], cdf[-1] = 0, 1
        total = 2**24 - d.POSTERIOR_BINS
        assert found.probabilities[i].sum(dtype=np.float64) == total
        assert np.abs(found.probabilities[i] / total - np.diff(cdf)).max() < 2e-5


def test_probabilities_are_integers_that_leave_one_for_each_bin():
    found = d.posterior_bins(grid([0.1]), grid([-8.0])).probabilities
    assert (found == np.floor(found)).all() and found.min() == 0
    assert found.sum(dtype=np.float64) + d.POSTERIOR_BINS == 2**24


@cases(100)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-9, 4)), min_size=1, max_size=20),
    st.integers(0, 1000),
)
def test_what_was_taken_comes_back(parameters, start):
    mean, log_std = (grid(values) for values in zip(*parameters, strict=True))
    posterior = d.posterior_bins(mean, log_std)
    coder = d.new_coder(WORDS[start:])
    before, bits = coder.get_compressed(), coder.num_valid_bits()
    z = d.pop_posterior(coder, posterior)
    assert torch.equal(z, rounded(z))
    assert coder.num_valid_bits() <= bits - 7 * len(z)
    d.push_posterior(coder, posterior, z)
    assert np.array_equal(coder.get_compressed(), before)


def test_what_is_taken_is_distributed_as_the_posterior():
    count, mean, log_std = 20_000, 0.75, -1.5
    words = np.random.default_rng(1).integers(1, 2**32, 20_000, np.uint32)
    posterior = d.posterior_bins(grid([mean] * count), grid([log_std] * count))
    z = d.pop_posterior(d.new_coder(words), posterior)
    std = np.exp(log_std)
    assert z.mean().item() == pytest.approx(mean, abs=5 * std / count**0.5)
    assert z.std().item() == pytest.approx(np.hypot(std, d.BIN / 12**0.5), rel=5 / count**0.5)


def test_the_prior():
    prior, coder = d.prior_bins(), d.new_coder()
    u = grid(np.random.default_rng(2).normal(size=5000).tolist())
    u[:2] = torch.tensor([64 - VALUE_UNIT, VALUE_UNIT - 64])
    assert d.within_prior(u).all()
    assert not d.within_prior(grid([64.0, -64.0, 100.0])).any()
    d.push_prior(coder, prior, u)
    bits = coder.num_valid_bits() - 2 * 24  # the two in the tails
    expected = -norm.logpdf(u[2:].numpy()).sum() / np.log(2) - 4998 * np.log2(VALUE_UNIT)
    assert bits == pytest.approx(expected, rel=1e-3)
    assert torch.equal(d.pop_prior(coder, prior, len(u)), u)
