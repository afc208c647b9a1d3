"""Pareto k-hat against known tails and ArviZ's, and what follows from it for an estimate."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import genpareto

from linear_gaussian import LinearGaussian, images
from vlae.evaluation.likelihood import (
    adaptively_sampled,
    estimates,
    importance_sampled,
    wanted_samples,
)
from vlae.evaluation.pareto import (
    generalized_pareto_k,
    keep_largest,
    most_k,
    needed_samples,
    pareto_k,
    tail_length,
)


def k_of(log_weights: np.ndarray, chunk: int = 16) -> float:
    """k-hat of log weights (n,) that stream through in chunks."""
    kept = torch.empty(1, 0, dtype=torch.float64)
    for start in range(0, len(log_weights), chunk):
        more = torch.from_numpy(log_weights[None, start : start + chunk])
        kept = keep_largest(kept, more, len(log_weights))
    return pareto_k(kept).item()


@pytest.mark.parametrize("k", [-0.5, 0.0, 0.3, 0.7, 1.0, 1.5])
def test_the_fit_finds_the_shape_of_a_generalized_pareto_distribution(k):
    draws = np.sort(genpareto.rvs(k, scale=3, size=(40, 1000), random_state=0))
    found = generalized_pareto_k(torch.from_numpy(draws))
    assert found.mean().item() == pytest.approx(k, abs=0.03)
    likeliest = [genpareto.fit(row, floc=0)[0] for row in draws[:3]]
    assert found[:3].tolist() == pytest.approx(likeliest, abs=0.05)
    assert torch.allclose(generalized_pareto_k(torch.from_numpy(draws * 1e-20)), found)


def made_up(samples: int, k: float) -> np.ndarray:
    even = (np.arange(samples) * 0.6180339887498949) % 1
    return -k * np.log1p(-even) + 0.01 * np.sin(np.arange(samples))


@pytest.mark.parametrize(
    ("samples", "k", "expected"),
    [  # arviz-stats 0.8.0: array_stats.psislw(-made_up(samples, k))[1]
        (64, 0.1, 0.310256025761657),
        (64, 1.5, 0.9209632604625646),
        (500, 0.5, 0.44727674837134723),
        (500, 0.8, 0.6939286192742111),
        (4096, 0.1, 0.06540130928341926),
        (4096, 0.8, 0.7539837073797047),
        (4096, 1.5, 1.410650445286337),
    ],
)
def test_it_is_the_k_hat_of_arviz(samples, k, expected):
    log_weights = made_up(samples, k)
    assert k_of(log_weights) == pytest.approx(expected, abs=1e-9)
    assert k_of(log_weights - 5000.0, chunk=7) == pytest.approx(expected, abs=1e-9)
    assert k_of(np.random.default_rng(0).permutation(log_weights)) == pytest.approx(expected)


def test_k_hat_of_extreme_weights():
    assert math.isnan(k_of(made_up(24, 0.5))) and not math.isnan(k_of(made_up(25, 0.5)))
    assert k_of(np.full(100, -80.0)) == 0  # a proposal that is the posterior
    assert k_of(-80 + 1e-9 * made_up(100, 0.5)) == 0
    one = np.full(100, -80.0)
    one[3] = 0  # one sample has it all
    far = np.linspace(-5000, 0, 100)
    assert k_of(one) > 1 and k_of(far) > 1
    assert math.isfinite(k_of(one)) and math.isfinite(k_of(far))
    assert [tail_length(n) for n in (20, 64, 225, 4096)] == [4, 12, 45, 192]


def test_how_many_samples_a_tail_needs():
    assert needed_samples(-1) == needed_samples(0) == 10 and needed_samples(1) == math.inf
    assert needed_samples(0.5) == pytest.approx(100)
    assert [round(most_k(n), 2) for n in (10, 64, 1000, 4096, 10**9)] == [0, 0.45, 0.67, 0.7, 0.7]
    assert wanted_samples(0.3, 4096, 10**6) == wanted_samples(0.7, 4096, 10**6) == 4096
    assert wanted_samples(0.75, 4096, 10**6) == 16384  # of 10^4
    assert wanted_samples(2.0, 4096, 10**5) == 10**5
    assert wanted_samples(math.nan, 8, 100) == 8


# Weights of a Gaussian proposal with `stretch` times the standard deviation of the posterior:
# w(e) ~ exp((1 - stretch^2) e^2 / 2) for e ~ N(0, 1), so P(w > t) ~ t^(-1 / (1 - stretch^2)).


@pytest.mark.parametrize("stretch", [0.4, 0.7, 1.3])
def test_the_tail_of_gaussians_is_known(stretch):
    model, x = LinearGaussian(stretch=stretch), images(60)
    found = importance_sampled(model, x, list(range(60)), 2**13, 0, "float32")
    expected = max(0, 1 - stretch**2)
    if expected:  # the tail has a power of log t beside that of t: it is approached from below
        assert found.pareto_k.mean().item() == pytest.approx(expected, abs=0.15)
    else:
        assert (found.pareto_k < 0.3).all()
    # Those that fail are those of the narrow proposal.
    assert ((found.pareto_k > most_k(2**13)).double().mean() > 0.4).item() == (stretch == 0.4)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.7, 2.0])
def test_with_a_wider_proposal_the_estimate_and_the_elbo_stay_what_they_are(scale):
    model, x = LinearGaussian(shift=0.3, stretch=0.5), images(100)
    numbers = list(range(100))
    found = importance_sampled(model, x, numbers, 4096, 0, "float32", scale)
    plain = importance_sampled(model, x, numbers, 4096, 0, "float32")
    error = (found.log_likelihood - model.exact(x)).abs().mean()
    assert error < 0.2
    if scale > 1.5:
        before = (plain.log_likelihood - model.exact(x)).abs().mean()
        assert error < 0.02 and error < before / 2
        assert found.ess.median() > 3 * plain.ess.median()
        assert (found.pareto_k < most_k(4096)).all()
    few = importance_sampled(model, x, numbers, 64, 0, "float32")
    if scale != 1:  # from 64 samples of q itself
        assert torch.equal(found.elbo, few.elbo) and torch.equal(found.kl, few.kl)


def test_the_scale_that_undoes_the_stretch_makes_the_bound_exact():
    model, x = LinearGaussian(stretch=0.5), images(20)
    found = importance_sampled(model, x, list(range(20)), 30, 0, "float32", 2.0)
    assert torch.allclose(found.log_likelihood, model.exact(x), atol=1e-10)
    assert torch.allclose(found.ess, torch.full_like(found.ess, 30))


class OnlyOddOnes(LinearGaussian):
    """A proposal that is the posterior of images with a positive first pixel, and narrow for
    others."""

    def encode(self, x):
        posterior = super().encode(x)
        narrow = math.log(0.4) * (x.flatten(1)[:, :1] < 0)
        return type(posterior)(posterior.mean, posterior.log_std + narrow, None)


def test_images_that_need_more_samples_get_them():
    model, x = OnlyOddOnes(), images(60)
    numbers, narrow = list(range(60)), images(60).flatten(1)[:, 0] < 0
    plain = importance_sampled(model, x, numbers, 256, 0, "float32")
    found = adaptively_sampled(model, x, numbers, 256, 0, "float32", 1.0, 5000)
    assert (found.samples[~narrow] == 256).all() and (
        found.samples[narrow] > 256
    ).double().mean() > 0.5
    assert found.samples.max() == 5000 and (found.samples >= 256).all()
    same = found.samples == 256
    assert torch.equal(found.log_likelihood[same], plain.log_likelihood[same])
    for name in ("elbo", "kl", "curve"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    for i in np.flatnonzero((~same).numpy())[:3]:  # what so many samples give it alone
        count = int(found.samples[i])
        alone = importance_sampled(model, x[i : i + 1], [int(i)], count, 0, "float32")
        assert alone.log_likelihood.item() == pytest.approx(
            found.log_likelihood[i].item(), rel=1e-12
        )
    exact = model.exact(x)
    before, after = ((r.log_likelihood - exact)[~same].abs().mean() for r in (plain, found))
    assert after < 0.7 * before


def test_the_number_of_samples_does_not_depend_on_those_of_the_estimate():
    """E[mean of the weights] is p(x): it would not be if a bad draw asked for more of itself."""
    model, one = LinearGaussian(stretch=0.6), images(1).expand(4000, -1, -1, -1)
    numbers = list(range(4000))
    found = adaptively_sampled(model, one, numbers, 32, 0, "float32", 1.0, 64)
    ratio = (found.log_likelihood - model.exact(one)).exp()
    assert 0.2 < (found.samples == 64).double().mean() < 0.9
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(4000)
    first = importance_sampled(model, one, numbers, 32, 0, "float32")
    more = found.samples == 64  # independent: as good a draw as any other
    gap = first.log_likelihood[more].mean() - first.log_likelihood[~more].mean()
    assert abs(gap) < 4 * first.log_likelihood.std() * math.sqrt(
        1 / more.sum() + 1 / (~more).sum()
    )


def test_no_setting_changes_what_was_estimated_before():
    model, x = LinearGaussian(shift=0.5), images(12)
    model.kind = "binary"
    plain = estimates(model, x, range(12), 100, 0, "float32")
    adaptive = estimates(model, x, range(12), 100, 0, "float32", 1.0, 100)
    for name, values in plain.items():
        assert np.array_equal(values, adaptive[name])
    assert (plain["samples"] == 100).all()
