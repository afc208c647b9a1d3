"""The bound: its two readings, its free bits, its parts against closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from vlae.config.load import load_params
from vlae.config.schema import ModelConfig
from vlae.models.base import standard_normal_log_density
from vlae.models.objective import objective
from vlae.models.vlae import VLAE, bernoulli_log_likelihood, new_flow
from vlae.nn.elu import elu
from vlae.nn.made import MADE
from vlae.nn.weightnorm import WeightNorm, data_dependent_initialisation

RUNS = {n: run for n, run in load_params().runs.items() if isinstance(run.model, ModelConfig)}


def initialised(name, batch=32):
    torch.manual_seed(0)
    model = VLAE(RUNS[name].model).double()
    x = (torch.rand(batch, 1, 28, 28) < 0.2).double()
    noise = torch.randn(batch, model.latent_dim).double() if model.latent_dim else None
    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)
    return model, x, noise


def test_two_readings_of_the_bound_agree():
    """AF prior on z, or IAF posterior on eps = f^-1(z) with p(x|f(eps)): section 3.2."""
    model, x, noise = initialised("static_mnist-vlae")
    log_likelihood, kl = model.bound_terms(x, noise)
    posterior = model.encode(x)
    z0 = posterior.mean + posterior.log_std.exp() * noise
    log_q0 = (
        torch.distributions.Normal(posterior.mean, posterior.log_std.exp()).log_prob(z0).sum(1)
    )
    eps, log_det = model.prior_flow.normalise(z0)  # the flow as inverse flow of the posterior
    log_q_eps = log_q0 - log_det
    z = model.prior_flow.generate(eps)  # the deeper generator
    bound = model.log_likelihood(x, z) + standard_normal_log_density(eps) - log_q_eps
    assert torch.allclose(log_likelihood - kl, bound, rtol=1e-11)


@pytest.mark.parametrize("name", RUNS)
def test_data_dependent_initialisation_gives_unit_variance(name):
    """Every weight-normalised layer's output, over the batch that initialised it."""
    torch.manual_seed(0)
    model = VLAE(RUNS[name].model).double()
    x = (torch.rand(48, 1, 28, 28) < 0.2).double()
    noise = torch.randn(48, model.latent_dim).double() if model.latent_dim else None
    outputs = {}

    def keep(layer, inputs, output):
        outputs.setdefault(layer, output.detach())

    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)
    for layer in model.modules():
        if isinstance(layer, WeightNorm):
            layer.register_forward_hook(keep)
    with torch.no_grad():
        objective(model, x, noise, 0.0)
    assert len(outputs) == sum(isinstance(m, WeightNorm) for m in model.modules())
    for output in outputs.values():
        units = [d for d in range(output.dim()) if d != 1]
        mean, variance = output.mean(units), output.var(units, correction=0)
        constant = variance < 1e-9  # units whose inputs are all masked
        assert torch.allclose(mean, torch.zeros_like(mean), atol=1e-7)
        assert torch.allclose(variance[~constant], torch.ones_like(variance[~constant]), rtol=1e-6)
        assert constant.sum() <= 2  # shift and scale of the first variable of a MADE


@pytest.mark.parametrize("name", ["static_mnist-vlae_iaf_relu", "static_mnist-vae_iaf"])
def test_iaf_posterior_density_by_change_of_variables(name):
    model, x, noise = initialised(name, 4)
    z, log_q = model.sample_posterior(model.encode(x), noise)
    posterior = model.encode(x)
    z0 = model.posterior_flow.generate(z, posterior.context)
    base = torch.distributions.Normal(posterior.mean, posterior.log_std.exp())
    assert torch.allclose(base.log_prob(z0).sum(1), log_q, atol=1e-6)


def test_iaf_uses_its_context():
    model, x, _ = initialised("static_mnist-vlae_iaf_relu", 4)
    posterior = model.encode(x)
    z0 = posterior.mean
    a, _ = model.posterior_flow.normalise(z0, posterior.context)
    b, _ = model.posterior_flow.normalise(z0, posterior.context.flip(0))
    assert not torch.allclose(a, b)


def test_free_bits_act_on_the_minibatch_mean():
    model, x, noise = initialised("static_mnist-vlae")
    loss, (reconstruction, kl) = objective(model, x, noise, 0.0)
    assert torch.isclose(loss, reconstruction + kl)
    above, below = kl.item() + 5, kl.item() - 5
    assert math.isclose(objective(model, x, noise, above)[0].item(), reconstruction.item() + above)
    assert math.isclose(objective(model, x, noise, below)[0].item(), loss.item())
    loss, _ = objective(model, x, noise, above)  # below the floor the KL has no gradient
    gradients = torch.autograd.grad(loss, list(model.prior_flow.parameters()), allow_unused=True)
    assert all(g is None or (g == 0).all() for g in gradients)


def test_bernoulli_likelihood_against_its_definition():
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 1, 28, 28).double()
    x = (torch.rand(5, 1, 28, 28) < 0.5).double()
    p = torch.sigmoid(logits)
    expected = torch.log(torch.where(x == 1, p, 1 - p)).sum((1, 2, 3))
    assert torch.allclose(bernoulli_log_likelihood(logits, x), expected)
    assert bernoulli_log_likelihood(logits.bfloat16(), x).dtype == torch.float32


def test_elu_is_elu_with_its_gradient():
    for x in (torch.linspace(-20, 5, 10_001).double(), torch.linspace(-1e-3, 1e-3, 1001)):
        x = x.requires_grad_()
        expected = torch.nn.functional.elu(x)
        value = elu(x)
        # float64: exp(x) - 1 cancels to one unit of rounding of 1; float32 likewise
        tolerance = 4 * torch.finfo(x.dtype).eps
        assert torch.allclose(value, expected, rtol=0, atol=tolerance)
        (ours,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
        (theirs,) = torch.autograd.grad(expected.sum(), x)
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["static_mnist-vlae", "static_mnist-vlae_factorized"])
def test_bfloat16_is_close_to_double(name):
    model, x, noise = initialised(name)
    exact, _ = objective(model, x, noise, 0.0)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = objective(model, x.float(), noise.float(), 0.0)
    assert math.isclose(rough.item(), exact.item(), rel_tol=2e-3)


def test_parameter_counts_are_those_worked_out_by_hand():
    """MADE 64-640-640-64 four times: weights, gains, biases."""
    flow = new_flow(RUNS["static_mnist-vlae"].model.prior, 64)
    step = 64 * 640 + 640 * 640 + 640 * 64 + 2 * (640 + 640 + 64)
    assert sum(p.numel() for p in flow.parameters()) == 4 * step


@pytest.mark.parametrize(
    ("run", "side", "activation", "expected"),
    [
        ("static_mnist-vlae", "prior", "published", torch.relu),
        ("static_mnist-vae_iaf", "posterior", "published", torch.nn.functional.elu),
        ("static_mnist-vlae", "prior", "elu", torch.nn.functional.elu),
        ("static_mnist-vlae_iaf_relu", "posterior", "relu", torch.relu),
    ],
)
def test_the_flow_has_the_activation_that_the_run_names(run, side, activation, expected):
    config = replace(getattr(RUNS[run].model, side), activation=activation)
    made = next(part for part in new_flow(config, 64).double().modules() if isinstance(part, MADE))
    x = torch.linspace(-3, 3, 64, dtype=torch.float64).expand(2, 64)
    h = x
    for layer in made.hidden:
        h = expected(layer(h))
    torch.testing.assert_close(made(x)[0], made.output(h))
