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
    """The encoder's output for each image: mean and log standard deviation (B, latent_dim) of the
    Gaussian, and the context (B, hidden) of an IAF, if there is one."""

    mean: Tensor
    log_std: Tensor
    context: Tensor | None


class Model(nn.Module, ABC):
    """q(z|x), p(z) and p(x|z). Everything outside of this package uses these methods only.

    B images x are (B, C, H, W) as the network's input; codes z and noise (B, latent_dim).
    `latent_dim` is 0 for a model without a latent variable: then `log_likelihood` is exact, takes
    None for z, and what concerns codes is not called. `kind` is the name of its images' kind
    (vlae.images).
    """

    kind: ClassVar[str]
    latent_dim: int

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Images -> q(z|x)."""

    @abstractmethod
    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised z ~ q(z|x) from standard normal noise, and log q(z|x) (B,), nats."""

    @abstractmethod
    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), nats (B,)."""

    @abstractmethod
    def sample_prior(self, noise: Tensor) -> Tensor:
        """z = f(noise) ~ p(z) for standard normal noise."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z), or log p(x) without a latent variable, nats (B,)."""

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, int, int]:
        """The shape of the uniform noise that `sample_images` draws one image with."""

    @abstractmethod
    def sample_images(self, z: Tensor | None, uniform: Tensor) -> Tensor:
        """x ~ p(x|z), (B, C, H, W), from noise in [0, 1), (B, *noise_shape)."""

    def bound_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One-sample terms (B,), nats: log p(x|z), and log q(z|x) - log p(z), in mean the KL."""
        z, log_q = self.sample_posterior(self.encode(x), noise)
        return self.log_likelihood(x, z), log_q - self.log_prior(z)


def needed(part: Part | None) -> Part:
    """The part of a model, or the code, itself; raises ValueError where it is None, as both are
    for a model without a latent variable."""
    if part is None:
        raise ValueError("this model has no latent variable, or no code was given")
    return part


def standard_normal_log_density(x: Tensor) -> Tensor:
    """log N(x; 0, I) in nats, summed over the last dimension."""
    return -0.5 * (x.square().sum(-1) + x.shape[-1] * LOG_2PI)


def latent_noise(latent_dim: int, x: Tensor, random: torch.Generator) -> Tensor | None:
    """Standard normal noise (B, latent_dim) for a batch, None for a model without a latent."""
    if not latent_dim:
        return None
    shape = (len(x), latent_dim)
    return torch.randn(shape, generator=random, device=x.device).to(x.dtype)
