"""The training loss (section 4.1, appendix C), nats an image.

    loss = reconstruction + cost(KL)

1. reconstruction = -E_q(z|x)[log p(x|z)], one sample of z for each image
2. KL = E_q(z|x)[log q(z|x) - log p(z)], the same sample
3. cost(KL): free bits, max(free_bits, KL), or soft free bits, gamma KL
"""

import torch
from torch import Tensor

from vlae.models.base import Model


def objective(
    model: Model, x: Tensor, noise: Tensor | None, free_bits: float, gamma: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss () of images x, (B, C, H, W), and its detached terms (2,): reconstruction, KL.

    noise: standard normal, (B, latent_dim); None for a model without a latent variable.
    """
    terms = negative_bound(model, x, noise)
    return loss(terms, free_bits if model.latent_dim else 0.0, gamma), terms.detach()


def negative_bound(model: Model, x: Tensor, noise: Tensor | None) -> Tensor:
    """(reconstruction, KL), means over the minibatch, (2,); their sum is -ELBO.

    Without a latent variable the KL is 0 and the reconstruction is -log p(x).
    """
    if noise is None:
        reconstruction = -model.log_likelihood(x, None).mean()
        return torch.stack([reconstruction, torch.zeros_like(reconstruction)])
    log_likelihood, kl = model.bound_terms(x, noise)
    return torch.stack([-log_likelihood.mean(), kl.mean()])


def loss(terms: Tensor, free_bits: float, gamma: Tensor | None = None) -> Tensor:
    """reconstruction + cost(KL) for terms (2,) of the whole minibatch.

    Free bits take the whole code as one group and the maximum of the minibatch's mean (Kingma
    et al. 2016, appendix C). With soft free bits the floor is up to whoever controls gamma, a
    tensor () between 0 and 1 (vlae.training.free_bits).
    """
    reconstruction, kl = terms
    cost = kl.clamp(min=free_bits) if gamma is None else gamma * kl
    return reconstruction + cost
