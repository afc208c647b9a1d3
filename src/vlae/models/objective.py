"""The training loss (section 4.1, appendix C), nats per image.

    loss = reconstruction + cost(KL)

1. reconstruction = -E_q(z|x)[log p(x|z)], estimated with one sample of z per image
2. KL = E_q(z|x)[log q(z|x) - log p(z)], estimated with the same sample
3. cost(KL) = max(free_bits, KL) with free bits, gamma KL with soft free bits

With K > 1 samples of each image the loss is the importance-weighted bound of Burda et al. (2016,
arXiv:1509.00519), which is between -ELBO (K = 1) and -log p(x):

    loss = -log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x)

Reconstruction and KL are then the means over the K samples. So reconstruction + KL is -ELBO with
any number of samples, and at least the loss.

The gradient of this loss is -sum_k v_k d log w_k with v_k = w_k / sum_j w_j. Taking -d log w_k of
one sample, drawn with probability v_k, has the same expectation (their section 3) and needs the
backward pass of one sample instead of K.
"""

import math

import torch
from torch import Tensor

from vlae.models.base import Model


def objective(
    model: Model, x: Tensor, noise: Tensor | None, free_bits: float, gamma: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss () of images x (B, C, H, W) and its detached terms (2,): reconstruction, KL.

    All are nats per image. noise: standard normal (B * K, latent_dim) for K samples of each image;
    None for a model without a latent variable.
    """
    terms = negative_bound(model, x, noise)
    return loss(terms, free_bits if model.latent_dim else 0.0, gamma), terms[:2].detach()


def negative_bound(
    model: Model, x: Tensor, noise: Tensor | None, uniform: Tensor | None = None
) -> Tensor:
    """Return the minibatch means (reconstruction, KL), nats (2,); their sum is -ELBO.

    With K > 1 samples of each image, (3,): the third is the negative importance-weighted bound.
    Without a latent variable the KL is 0 and the reconstruction is -log p(x).

    uniform: numbers in [0, 1), (B,), that draw one of the K samples of each image. Only the
    third term has a gradient then, that of the drawn samples. None: the gradient of all samples.
    """
    if noise is None:
        reconstruction = -model.log_likelihood(x, None).mean()
        return torch.stack([reconstruction, torch.zeros_like(reconstruction)])
    with torch.set_grad_enabled(torch.is_grad_enabled() and uniform is None):
        log_likelihood, kl = model.bound_terms(x, noise)
        terms = [-log_likelihood.mean(), kl.mean()]
        if len(noise) > len(x):
            log_weights = (log_likelihood - kl).view(len(x), -1)
            terms.append(-importance_weighted(log_weights).mean())
    if uniform is not None:
        each = torch.arange(len(x), device=x.device)
        own = noise.view(*log_weights.shape, -1)[each, drawn(log_weights, uniform)]
        log_likelihood, kl = model.bound_terms(x, own)
        negative = (kl - log_likelihood).mean()
        terms[2] = terms[2] + (negative - negative.detach())  # its gradient, and no other value
    return torch.stack(terms)


def drawn(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """Return the number of one sample of each image (B,), drawn in proportion to its weight.

    log_weights: (B, K). uniform: in [0, 1), (B,).
    """
    until = log_weights.softmax(1).cumsum(1)
    # Rounding can leave the last sum below 1.
    return (uniform[:, None] >= until).sum(1).clamp(max=log_weights.shape[1] - 1)


def importance_weighted(log_weights: Tensor) -> Tensor:
    """Return log 1/K sum_k w_k, nats (B,), for the log-weights (B, K) of each image's samples."""
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


def loss(terms: Tensor, free_bits: float, gamma: Tensor | None = None) -> Tensor:
    """Return reconstruction + cost(KL), nats, for the terms (2,) of the whole minibatch.

    Of terms (3,) it is the third, the negative importance-weighted bound. That has no free bits.

    Free bits treat the code as one group and apply the maximum to the minibatch mean (Kingma et
    al. 2016, appendix C). Soft free bits ignore `free_bits` here: the controller of gamma, a
    tensor () above 0 and at most 1, enforces the floor (vlae.training.free_bits).
    """
    if len(terms) == 3:
        return terms[2]
    reconstruction, kl = terms
    cost = kl.clamp(min=free_bits) if gamma is None else gamma * kl
    return reconstruction + cost
