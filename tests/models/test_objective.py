"""The importance-weighted bound against its definition, and its gradient against autograd's."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax, softmax

from miniature import SMALL_COLOUR_VLAE
from small_models import small_vlae
from vlae.config.schema import ColourModelConfig
from vlae.hardware import autocast
from vlae.models.base import Posterior, latent_noise
from vlae.models.colour_vlae import ColourVLAE
from vlae.models.objective import (
    drawn,
    importance_weighted,
    loss,
    negative_bound,
    objective,
)
from vlae.native.library import mode, unavailable_reason

IMAGES, SAMPLES = 5, 4


def batch(latent_dim: int, samples: int = SAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = (torch.rand(IMAGES, 1, 28, 28, generator=random) < 0.3).double()
    return x, torch.randn(IMAGES * samples, latent_dim, generator=random).double()


def log_weights(model, x, noise) -> torch.Tensor:
    """log p(x|z) p(z) / q(z|x) (B, K), one image and sample at a time, each encoded by itself."""
    rows = []
    for image, own in zip(x, noise.view(len(x), -1, noise.shape[1]), strict=True):
        row = []
        for one in own:
            z, log_q = model.sample_posterior(model.encode(image[None]), one[None])
            row.append(model.log_likelihood(image[None], z) + model.log_prior(z) - log_q)
        rows.append(torch.cat(row))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["af", "iaf", "gaussian", "factorized"])
def test_the_bound_is_the_log_of_the_mean_weight(kind):
    model = small_vlae(kind).double()
    x, noise = batch(model.latent_dim)
    with torch.no_grad():
        terms = negative_bound(model, x, noise)
        weights = log_weights(model, x, noise)
        bound = (weights.exp().mean(1)).log().mean()  # |log w| is below 700: no overflow
        assert weights.abs().max() < 700
        value, two = objective(model, x, noise, 0.0)
    assert terms.shape == (3,)
    assert terms[2].item() == pytest.approx(-bound.item(), rel=1e-12)
    assert value == terms[2] == loss(terms, 0.0) and torch.equal(two, terms[:2])
    # Reconstruction and KL are means over the samples: their sum is -ELBO, which is not below.
    assert (terms[0] + terms[1]).item() == pytest.approx(-weights.mean().item(), rel=1e-12)
    assert terms[0] + terms[1] > terms[2]


def test_the_gradient_is_that_of_the_weighted_log_weights():
    """d/dtheta log 1/K sum w = sum_k w_k / sum w  d/dtheta log w_k (Burda et al., equation 12)."""
    model = small_vlae("iaf").double()
    x, noise = batch(model.latent_dim)
    negative_bound(model, x, noise)[2].backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    weights = log_weights(model, x, noise)
    (-(softmax(weights.detach(), 1) * weights).sum(1).mean()).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-9, atol=1e-12)


def gradients(model, terms) -> dict:
    model.zero_grad()
    terms[2].backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("kind", ["af", "iaf"])
def test_the_gradient_of_a_drawn_sample_has_the_expectation_of_that_of_all(kind):
    """Exactly: every sample of an image drawn once, and weighted with its probability."""
    model = small_vlae(kind).double()
    images, noise = batch(model.latent_dim)
    x, noise = images[:1], noise[:SAMPLES]
    terms = negative_bound(model, x, noise)
    expected = gradients(model, terms)
    with torch.no_grad():
        probabilities = softmax(log_weights(model, x, noise), 1)[0]
    mean = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}
    for number, probability in enumerate(probabilities):
        uniform = (probabilities[:number].sum() + probability / 2)[None]
        one = negative_bound(model, x, noise, uniform)
        assert torch.equal(one, terms)  # in value it is the same bound
        found = gradients(model, one)
        with torch.no_grad():
            assert drawn(log_weights(model, x, noise), uniform).tolist() == [number]
        for name, gradient in found.items():
            mean[name] += probability * gradient
    for name, gradient in expected.items():
        torch.testing.assert_close(mean[name], gradient, rtol=1e-9, atol=1e-12)
    single = found["mean.gain"] - expected["mean.gain"]
    assert single.norm() > 0.1 * expected["mean.gain"].norm()  # one sample alone is not the mean


def test_samples_are_drawn_in_proportion_to_their_weights():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3])
    uniform = (torch.arange(1000) + 0.5) / 1000
    numbers = drawn(weights.log().expand(1000, 4) - 5000, uniform)
    assert numbers.bincount(minlength=4).tolist() == [100, 0, 600, 300]
    # float32 sums of softmax may end below 1: the last sample is taken, not one beyond it.
    below_one = torch.full((200, 4096), -1.0)
    below_one[:, ::3] = -2.5
    last = torch.nextafter(torch.ones(200), torch.zeros(200))
    assert drawn(below_one, last).max() <= 4095


def test_each_image_draws_among_its_own_samples():
    """The gradient of a batch is the mean of its images' gradients."""
    model = small_vlae("af").double()
    x, noise = batch(model.latent_dim)
    uniform = torch.linspace(0.05, 0.95, IMAGES, dtype=torch.float64)
    whole = gradients(model, negative_bound(model, x, noise, uniform))
    own = noise.view(IMAGES, SAMPLES, -1)
    parts = [
        gradients(model, negative_bound(model, x[i : i + 1], own[i], uniform[i : i + 1]))
        for i in range(IMAGES)
    ]
    for name, gradient in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-9, atol=1e-12)


def test_one_sample_is_the_old_objective():
    model = small_vlae("af")
    x, noise = (values.float() for values in batch(model.latent_dim, 1))
    z, log_q = model.sample_posterior(model.encode(x), noise)
    old = torch.stack([-model.log_likelihood(x, z).mean(), (log_q - model.log_prior(z)).mean()])
    assert torch.equal(negative_bound(model, x, noise), old)
    assert torch.equal(loss(old, 7.84), old[0] + old[1].clamp(min=7.84))
    random = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(
        latent_noise(model.latent_dim, x, random[0]),
        torch.randn(IMAGES, model.latent_dim, generator=random[1]),
    )


def test_more_samples_give_a_higher_bound_below_the_likelihood():
    """z ~ N(0, 1), x ~ N(z, 1) and q(z|x) = N(0, 1): log p(x) is that of N(0, 2)."""
    random, x = torch.Generator().manual_seed(0), 2.0
    z = torch.randn(4000, 64, generator=random, dtype=torch.float64)
    log_w = -0.5 * (x - z) ** 2 - 0.5 * math.log(2 * math.pi)
    exact = -0.25 * x**2 - 0.5 * math.log(4 * math.pi)
    found = []
    for samples in (1, 2, 8, 64):
        bounds = importance_weighted(log_w.view(-1, samples))
        error = bounds.std().item() / math.sqrt(len(bounds))
        assert bounds.mean().item() < exact + 3 * error
        found.append(bounds.mean().item())
    assert found == sorted(found) and found[1] - found[0] > 0.2
    assert found[-1] == pytest.approx(exact, abs=0.02)


def test_equal_weights_give_the_weight_itself():
    assert torch.allclose(importance_weighted(torch.full((3, 8), -7000.0)), torch.tensor(-7000.0))
    weights = torch.randn(2, 5, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(importance_weighted, weights)
    assert torch.allclose(gradient.sum(1), log_softmax(weights, 1).exp())


def test_a_posterior_is_repeated_image_by_image():
    mean = torch.arange(4.0).view(2, 2)
    twice = Posterior(mean, -mean, mean + 1).repeated(2)
    assert twice.mean.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert torch.equal(twice.log_std, -twice.mean) and torch.equal(twice.context, twice.mean + 1)
    assert Posterior(mean, mean, None).repeated(3).context is None


def test_colour_images():
    model = ColourVLAE(ColourModelConfig(trunk="resnet", **SMALL_COLOUR_VLAE), 8).double()
    random = torch.Generator().manual_seed(2)
    x = torch.rand(2, 3, 8, 8, generator=random).double() * 2 - 1
    noise = torch.randn(6, model.latent_dim, generator=random).double()
    with torch.no_grad():
        weights = log_weights(model, x, noise)
        terms = negative_bound(model, x, noise)
    expected = -torch.logsumexp(weights, 1).mean() + math.log(3)
    assert terms[2].item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.skipif(bool(unavailable_reason()), reason="no C++ core here")
def test_the_core_weights_each_sample_as_pytorch_does(monkeypatch):
    """The core computes no gradient in the forward pass, and that of the weighted sum behind."""
    from vlae.native import network

    model = small_vlae("af").train()
    x, noise = (values.float() for values in batch(model.latent_dim))
    asked = []
    compute = network._LogLikelihood.compute

    def noting(core, images, target, needed, scale=None):
        asked.append((needed, None if scale is None else scale.clone()))
        return compute(core, images, target, needed, scale)

    monkeypatch.setattr(network._LogLikelihood, "compute", staticmethod(noting))
    with autocast(x.device, mode().precision):
        bound = negative_bound(model, x, noise)[2]
    bound.backward()
    (first, nothing), (second, scale) = asked
    assert (first, nothing, second) == (False, None, True)
    assert scale.view(IMAGES, SAMPLES).sum(1).tolist() == pytest.approx(
        [-1 / IMAGES] * IMAGES, rel=1e-4
    )
    found = {name: weight.grad.double() for name, weight in model.named_parameters()}
    exact = small_vlae("af").double()
    negative_bound(exact, x.double(), noise.double())[2].backward()
    for name, weight in exact.named_parameters():
        if name.startswith("pixelcnn"):
            error = (found[name] - weight.grad).norm() / weight.grad.norm()
            assert error < 0.05, name  # bfloat16, as in tests/native/test_native.py
