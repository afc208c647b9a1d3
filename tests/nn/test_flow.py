"""The flow inverts, its log-determinant is autograd's, and it is a density."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from vlae.models.base import standard_normal_log_density
from vlae.nn.flow import AutoregressiveFlow
from vlae.nn.made import MADE
from vlae.nn.weightnorm import data_dependent_initialisation


def flow(dim=5, scale=False, context_dim=0, steps=3, layers=3, amplify=None):
    """A flow whose steps are far from the identity."""
    torch.manual_seed(0)
    made = AutoregressiveFlow(dim, steps, 8 * dim, layers, scale, context_dim).double()
    context = torch.randn(64, context_dim).double() if context_dim else None
    with data_dependent_initialisation(made):
        made.normalise(torch.randn(64, dim).double(), context)
    amplify = amplify or (3.0 if scale else 10.0)
    with torch.no_grad():
        for step in made.steps:
            step.output.gain.mul_(amplify)
    return made


CASES = [(False, 0), (True, 0), (False, 7), (True, 7)]


@pytest.mark.parametrize(("scale", "context_dim"), CASES)
def test_generation_inverts_normalisation(scale, context_dim):
    made = flow(scale=scale, context_dim=context_dim)
    z = torch.randn(9, 5).double()
    context = torch.randn(9, context_dim).double() if context_dim else None
    noise, _ = made.normalise(z, context)
    assert (noise - z).abs().max() > 0.1
    assert torch.allclose(made.generate(noise, context), z, atol=1e-10)


@pytest.mark.parametrize(("scale", "context_dim"), CASES)
def test_log_determinant_is_that_of_the_jacobian(scale, context_dim):
    made = flow(scale=scale, context_dim=context_dim)
    z = torch.randn(1, 5).double()
    context = torch.randn(1, context_dim).double() if context_dim else None
    matrix = jacobian(lambda z: made.normalise(z, context)[0].squeeze(0), z).squeeze(1)
    _, log_det = made.normalise(z, context)
    assert math.isclose(torch.linalg.slogdet(matrix)[1].item(), log_det.item(), abs_tol=1e-10)
    assert (log_det == 0).all() == (not scale)


@pytest.mark.parametrize("scale", [False, True])
def test_prior_integrates_to_one_in_two_dimensions(scale):
    made = flow(dim=2, scale=scale, amplify=1.5 if scale else None)
    grid = torch.linspace(-14, 14, 1401, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        noise, log_det = made.normalise(z)
    density = (standard_normal_log_density(noise) + log_det).exp()
    assert math.isclose((density.sum() * (grid[1] - grid[0]) ** 2).item(), 1, abs_tol=1e-3)


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize(("dim", "hidden"), [(6, 60), (6, 40)])
def test_made_output_depends_on_earlier_inputs_only(dim, hidden, layers):
    torch.manual_seed(0)
    made = MADE(dim, hidden, layers, activation="elu").double()
    z = torch.randn(dim).double()
    matrix = jacobian(lambda z: made(z[None])[0][0], z)
    below = torch.tril(torch.ones(dim, dim), -1).bool()
    assert (matrix[below] != 0).all()
    assert (matrix[~below] == 0).all()


def test_density_agrees_with_zuko_with_copied_weights():
    """zuko's masked network, fed our effective weights, is an independent oracle."""
    zuko = pytest.importorskip("zuko")
    dim, hidden = 4, 32
    made = flow(dim=dim, scale=True, steps=1, layers=3)
    step = made.steps[0]
    theirs = zuko.nn.MaskedMLP(
        torch.tril(torch.ones(dim, dim), -1).bool().repeat_interleave(2, 0), [hidden, hidden]
    ).double()
    linears = [m for m in theirs if isinstance(m, zuko.nn.MaskedLinear)]
    ours = [*step.hidden, step.output]
    order = torch.arange(2 * dim).view(2, dim).T.flatten()  # (output, dim) -> (dim, output)
    with torch.no_grad():
        for mine, linear in zip(ours, linears, strict=True):
            weight, bias = mine.weight(), mine.bias
            if mine is step.output:
                weight, bias = weight[order], bias[order]
            linear.mask.fill_(True)  # our weights carry our masks
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)

    def affine(parameters):
        shift, log_scale = (0.1 * parameters.view(*parameters.shape[:-1], dim, 2)).unbind(-1)
        return torch.distributions.TransformedDistribution(
            torch.distributions.Normal(torch.zeros_like(shift), 1.0),
            torch.distributions.AffineTransform(shift, log_scale.exp()),
        )

    z = torch.randn(11, dim).double()
    expected = affine(theirs(z)).log_prob(z).sum(-1)
    noise, log_det = made.normalise(z)
    assert torch.allclose(standard_normal_log_density(noise) + log_det, expected, atol=1e-10)
