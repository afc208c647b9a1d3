"""The interface of every model: an encoder, a prior and a decoder.

log p(x) >= E_q(z|x) [ log p(x|z) + log p(z) - log q(z|x) ]        (nats; equation 2)
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)
Part = TypeVar("Part")


@dataclass(frozen=True)
class Posterior:
    """The encoder's output: mean and log standard deviation of the Gaussian, (B, latent_dim).

    context: the IAF's input (B, hidden), None without an IAF.
    """

    mean: Tensor
    log_std: Tensor
    context: Tensor | None

    def repeated(self, count: int) -> "Posterior":
        """Return each row `count` times in succession: (B * count, …)."""
        if count == 1:
            return self
        context = None if self.context is None else self.context.repeat_interleave(count, 0)
        return Posterior(
            self.mean.repeat_interleave(count, 0),
            self.log_std.repeat_interleave(count, 0),
            context,
        )


class Model(nn.Module, ABC):
    """q(z|x), p(z) and p(x|z). Code outside of this package uses only these methods.

    Images x are network input (B, C, H, W); codes z and noise are (B, latent_dim).
    `latent_dim` is 0 for a model without a latent variable. Then `log_likelihood` is exact and
    takes None for z, and the methods for codes are not called. `kind` names the model's kind of
    images (vlae.images).
    """

    kind: ClassVar[str]
    latent_dim: int

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Return q(z|x) for images x."""

    @abstractmethod
    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sample z ~ q(z|x) from standard normal noise; return z and log q(z|x) (B,), nats.

        z is differentiable in the posterior's parameters (reparametrised).
        """

    @abstractmethod
    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), nats (B,)."""

    @abstractmethod
    def sample_prior(self, noise: Tensor) -> Tensor:
        """Return z = f(noise) ~ p(z) for standard normal noise."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, z: Tensor | None, weighted: bool = False) -> Tensor:
        """Return log p(x|z), or log p(x) without a latent variable, nats (B,).

        weighted: True if the gradients that flow back will differ between the images. It changes
        no value; a model may need it to compute the gradient once instead of twice.
        """

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, int, int]:
        """The shape of the uniform noise that `sample_images` needs for one image."""

    @abstractmethod
    def sample_images(self, z: Tensor | None, uniform: Tensor) -> Tensor:
        """Sample x ~ p(x|z), (B, C, H, W), from noise in [0, 1), (B, *noise_shape)."""

    def bound_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return one-sample estimates, nats: log p(x|z) and log q(z|x) - log p(z).

        The expectation of the second is the KL. Each result is (B * K,) for noise
        (B * K, latent_dim): K samples of each image, in succession, from one pass of the encoder.
        """
        samples = len(noise) // len(x)
        posterior = self.encode(x).repeated(samples)
        z, log_q = self.sample_posterior(posterior, noise)
        if samples == 1:
            return self.log_likelihood(x, z), log_q - self.log_prior(z)
        x = x.repeat_interleave(samples, 0)
        return self.log_likelihood(x, z, weighted=True), log_q - self.log_prior(z)


def needed(part: Part | None) -> Part:
    """Return `part`, a part of a model or a code, unless it is None.

    Raises ValueError for None, which a model without a latent variable has for both.
    """
    if part is None:
        raise ValueError("this model has no latent variable, or no code z was given")
    return part


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Return log N(x; 0, I), nats, summed over the last dimension: (..., D) -> (...)."""
    return -0.5 * (x.square().sum(-1) + x.shape[-1] * LOG_2PI)


def latent_noise(
    latent_dim: int, x: Tensor, random: torch.Generator, samples: int = 1
) -> Tensor | None:
    """Return standard normal noise for the batch x, or None if latent_dim is 0.

    (B * samples, latent_dim): the noise of an image's samples in succession.
    """
    if not latent_dim:
        return None
    shape = (len(x) * samples, latent_dim)
    return torch.randn(shape, generator=random, device=x.device).to(x.dtype)
