"""A model whose log-likelihood and posterior are known."""

import math

import torch

from vlae.models.base import Posterior, standard_normal_log_density


class LinearGaussian:
    """z ~ N(0, I), x = W z + noise: p(x) = N(0, W W' + s^2 I), p(z|x) Gaussian as well.

    The proposal is the true posterior with its mean shifted and its deviation stretched.
    """

    latent_dim, noise = 1, 0.5

    def __init__(self, shift=0.0, stretch=1.0):
        torch.manual_seed(0)
        self.weight = torch.randn(8, 1, dtype=torch.float64)
        self.shift, self.stretch = shift, stretch
        self.most_rows = 0

    def exact(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(8).double()
        normal = torch.distributions.MultivariateNormal(torch.zeros(8).double(), covariance)
        return normal.log_prob(x.flatten(1))

    def encode(self, x):
        precision = 1 + (self.weight**2).sum() / self.noise**2
        mean = x.flatten(1) @ self.weight / self.noise**2 / precision
        std = precision**-0.5 * self.stretch
        return Posterior(mean + self.shift * std, torch.full_like(mean, math.log(std)), None)

    def sample_posterior(self, posterior, noise):
        z = posterior.mean + posterior.log_std.exp() * noise
        return z, standard_normal_log_density(noise) - posterior.log_std.sum(-1)

    def log_prior(self, z):
        return standard_normal_log_density(z)

    def log_likelihood(self, x, z):
        self.most_rows = max(self.most_rows, len(x))
        rest = (x.flatten(1) - z @ self.weight.T) / self.noise
        return standard_normal_log_density(rest) - 8 * math.log(self.noise)


def images(count=200):
    torch.manual_seed(1)
    model = LinearGaussian()
    z = torch.randn(count, 1).double()
    x = z @ model.weight.T + model.noise * torch.randn(count, 8).double()
    return x.view(count, 1, 2, 4)
