"""The bound of the colour model: its two readings, its parts, its estimate, its samples."""

import math

import pytest
import torch
from torch.distributions import Normal

from miniature import SMALL_COLOUR_VLAE
from vlae.config.schema import ColourModelConfig
from vlae.evaluation.likelihood import importance_sampled
from vlae.images import scaled
from vlae.models.base import standard_normal_log_density
from vlae.models.colour_vlae import ColourVLAE
from vlae.models.objective import objective
from vlae.nn.weightnorm import WeightNorm, data_dependent_initialisation
from vlae.units import bits_per_dim

PAPER = {"widths": (48, 96, 96), "latent_maps": 16, "flow_steps": 6, "flow_maps": 128}
PAPER |= {"flow_layers": 2, "flow_scale": False, "window": "7x4", "grayscale": False}
PAPER |= {"blocks": 4, "maps": 64, "mixtures": 10}
SIDE = 8


def initialised(batch=16, trunk="resnet", **changes):
    torch.manual_seed(0)
    model = ColourVLAE(
        ColourModelConfig(trunk=trunk, **SMALL_COLOUR_VLAE | changes), SIDE
    ).double()
    x = scaled(torch.randint(0, 256, (batch, 3, SIDE, SIDE)).double())
    noise = torch.randn(batch, model.latent_dim).double()
    with data_dependent_initialisation(model):
        model.bound_terms(x, noise)
    return model, x, noise


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("trunk", ["resnet", "densenet"])
def test_two_readings_of_the_bound_agree(trunk, scale):
    """AF prior on z, or IAF posterior on eps = f^-1(z) with p(x|f(eps)): section 3.2."""
    model, x, noise = initialised(trunk=trunk, flow_scale=scale)
    log_likelihood, kl = model.bound_terms(x, noise)
    posterior = model.encode(x)
    z0 = posterior.mean + posterior.log_std.exp() * noise
    log_q0 = Normal(posterior.mean, posterior.log_std.exp()).log_prob(z0).sum(1)
    eps, log_det = model.prior_flow.normalise(z0.view(-1, *model.code_shape))
    z = model.sample_prior(eps.flatten(1))
    assert torch.allclose(z, z0, atol=1e-9)
    log_u = standard_normal_log_density(eps.flatten(1))
    bound = model.log_likelihood(x, z) + log_u - (log_q0 - log_det)
    assert torch.allclose(log_likelihood - kl, bound, rtol=1e-9)


def test_every_layer_is_initialised_by_the_data():
    model, x, noise = initialised()
    outputs = {}
    for layer in model.modules():
        if isinstance(layer, WeightNorm):
            layer.register_forward_hook(lambda m, _, out: outputs.setdefault(m, out.detach()))
    with torch.no_grad():
        model.bound_terms(x, noise)
    assert len(outputs) == sum(isinstance(m, WeightNorm) for m in model.modules())
    for output in outputs.values():
        variance = output.var((0, 2, 3), correction=0)
        constant = variance < 1e-9  # units whose inputs are all masked
        assert torch.allclose(variance[~constant], torch.ones(()).double(), rtol=1e-6)


def test_objective_and_gradients_reach_every_parameter():
    """The objective of the binary models takes this model as it is."""
    model, x, noise = initialised()
    loss, (reconstruction, kl) = objective(model, x, noise, 0.0)
    assert torch.isclose(loss, reconstruction + kl)
    assert math.isclose(bits_per_dim(math.log(256) * 3072, 3072), 8)  # a uniform distribution
    assert 0 < bits_per_dim(loss.item(), 3 * SIDE**2) < 20
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_importance_sampling_takes_the_model_as_it_is():
    """One sample is the bound; with more samples the estimate does not fall, in mean."""
    model, x, _ = initialised()
    one = importance_sampled(model, x[:4], [0, 1, 2, 3], 1, 0, "float32")
    assert torch.allclose(one.log_likelihood, one.elbo, rtol=1e-12)
    many = importance_sampled(model, x[:4], [0, 1, 2, 3], 64, 0, "float32")
    assert (many.log_likelihood > many.elbo).all()
    assert torch.allclose(many.curve[:, 0], one.elbo, rtol=1e-12)
    rising = many.curve.mean(0)
    assert rising[-1] > rising[0]


def test_the_window_bounds_what_the_decoder_sees():
    """Of a distant pixel log p(x|z) tells only what the code does: beyond the window the
    likelihood of a pixel does not change with the image."""
    model, x, noise = initialised(2)
    z, _ = model.sample_posterior(model.encode(x), noise)
    other = x.clone()
    other[:, :, 0, 0] = -other[:, :, 0, 0]
    near = {(r, c) for r in range(4) for c in range(3)}  # 5x3: three rows, two columns
    maps = model.trunk(z.view(-1, *model.code_shape))
    a, b = (model.pixelcnn.features(images, maps) for images in (x, other))
    changed = (a != b).any(1).any(0).nonzero().tolist()
    assert {tuple(place) for place in changed} <= near and len(changed) > 3


def test_samples_are_images_and_follow_their_noise():
    model, x, noise = initialised(3)
    uniform = torch.rand(3, 4, SIDE, SIDE).double()
    z = model.sample_prior(noise)
    images = model.sample_images(z, uniform)
    assert images.shape == x.shape and images.min() >= -1 and images.max() <= 1
    assert torch.equal(images, model.sample_images(z, uniform))
    assert not torch.equal(images, model.sample_images(z.flip(0), uniform))
    assert not torch.equal(images, model.sample_images(z, uniform.flip(0)))


def test_samples_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    model, _, noise = initialised(5)
    uniform = torch.rand(5, 4, SIDE, SIDE).double()
    z = model.sample_prior(noise)
    together = model.sample_images(z, uniform)
    monkeypatch.setattr("vlae.models.colour_vlae.DRAWN_TOGETHER", 2)
    assert torch.equal(model.sample_images(z, uniform), together)
    assert torch.equal(model.sample_images(z[3:], uniform[3:]), together[3:])


@pytest.mark.parametrize("trunk", ["resnet", "densenet"])
def test_the_papers_model_on_one_image(trunk):
    torch.manual_seed(0)
    model = ColourVLAE(ColourModelConfig(trunk=trunk, **PAPER))
    assert model.latent_dim == 1024
    with torch.no_grad():
        terms = model.bound_terms(torch.zeros(1, 3, 32, 32), torch.randn(1, 1024))
    assert all(t.shape == (1,) and torch.isfinite(t).all() for t in terms)
