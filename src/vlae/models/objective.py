"""The training loss (section 4.1, appendix C), nats per image.

    loss = reconstruction + cost(KL)

1. reconstruction = -E_q(z|x)[log p(x|z)], estimated with one sample of z per image
2. KL = E_q(z|x)[log q(z|x) - log p(z)], estimated with the same sample
3. cost(KL) = max(free_bits, KL) with free bits, gamma KL with soft free bits
"""

import torch
from torch import Tensor

from vlae.models.base import Model


def objective(
    model: Model, x: Tensor, noise: Tensor | None, free_bits: float, gamma: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss () of images x (B, C, H, W) and its detached terms (2,): reconstruction, KL.

    All are nats per image. noise: standard normal (B, latent_dim); None for a model without a
    latent variable.
    """
    terms = negative_bound(model, x, noise)
    return loss(terms, free_bits if model.latent_dim else 0.0, gamma), terms.detach()


def negative_bound(model: Model, x: Tensor, noise: Tensor | None) -> Tensor:
    """Return the minibatch means (reconstruction, KL), nats (2,); their sum is -ELBO.

    Without a latent variable the KL is 0 and the reconstruction is -log p(x).
    """
    if noise is None:
        reconstruction = -model.log_likelihood(x, None).mean()
        return torch.stack([reconstruction, torch.zeros_like(reconstruction)])
    log_likelihood, kl = model.bound_terms(x, noise)
    return torch.stack([-log_likelihood.mean(), kl.mean()])


def loss(terms: Tensor, free_bits: float, gamma: Tensor | None = None) -> Tensor:
    """Return reconstruction + cost(KL), nats, for the terms (2,) of the whole minibatch.

    Free bits treat the code as one group and apply the maximum to the minibatch mean (Kingma et
    al. 2016, appendix C). Soft free bits ignore `free_bits` here: the controller of gamma, a
    tensor () above 0 and at most 1, enforces the floor (vlae.training.free_bits).
    """
    reconstruction, kl = terms
    cost = kl.clamp(min=free_bits) if gamma is None else gamma * kl
    return reconstruction + cost
