"""Estimators of log p(x), image by image (section 4.1).

    log p(x) ~ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

The encoder runs once for an image; samples stream through in chunks, so memory does not
grow with K. A model without a latent variable needs no sampling; its likelihood is exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlae.hardware import autocast
from vlae.models.base import Model, Posterior
from vlae.randomness import generator

CHUNK = 16  # samples of an image that are decoded together; fixes which noise is drawn
# Images x samples decoded at once, by the kind of image: what sets peak memory.
ROWS = {"binary": 512, "colour": 64}
MORE_ROWS_ON_A_GPU = 16  # times as many: small batches leave it idle
VALUES = ("log_likelihood", "elbo", "kl", "ess")  # of each image, beside its curve


@dataclass
class PerImage:
    """Values of each image, nats: log_likelihood, elbo, kl (means over the samples), ess
    (effective samples, 1 to K), each (N,); curve (N, len(ks)): the bound with k samples."""

    log_likelihood: Tensor
    elbo: Tensor
    kl: Tensor
    ess: Tensor
    curve: Tensor


def curve_points(samples: int) -> list[int]:
    """1, 2, 4, … and the number of samples itself."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples]


@torch.no_grad()
def importance_sampled(
    model: Model, x: Tensor, noise_seeds: list[int], samples: int, seed: int, precision: str
) -> PerImage:
    """Estimates for images x (B, C, H, W); image b draws its noise from noise_seeds[b]."""
    images = len(x)
    ks = curve_points(samples)
    full = x.dtype if x.dtype == torch.float64 else torch.float32
    with autocast(x.device, precision):
        posterior = model.encode(x)
    log_sum = torch.full((images,), -math.inf, dtype=torch.float64, device=x.device)
    log_squares = log_sum.clone()
    bound = torch.zeros(images, dtype=torch.float64, device=x.device)
    kl = bound.clone()
    curve = torch.zeros(images, len(ks), dtype=torch.float64, device=x.device)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        noise = torch.stack(
            [
                torch.randn(
                    CHUNK,
                    model.latent_dim,
                    generator=generator(seed, f"image {i}", start // CHUNK),
                )
                for i in noise_seeds
            ]
        )[:, :count].to(x.device, full)
        log_w, log_ratio = _log_weights(model, x, posterior, noise, precision)
        partial = torch.logcumsumexp(torch.cat([log_sum[:, None], log_w], 1), 1)[:, 1:]
        for column, k in enumerate(ks):
            if start < k <= start + count:
                curve[:, column] = partial[:, k - start - 1] - math.log(k)
        log_sum = partial[:, -1]
        log_squares = torch.logaddexp(log_squares, torch.logsumexp(2 * log_w, 1))
        bound += log_w.sum(1)
        kl += log_ratio.sum(1)
    return PerImage(
        log_sum - math.log(samples),
        bound / samples,
        kl / samples,
        torch.exp(2 * log_sum - log_squares),
        curve,
    )


def _log_weights(
    model: Model, x: Tensor, posterior: Posterior, noise: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    """log p(x|z) + log p(z) - log q(z|x), and log q(z|x) - log p(z).

    Noise (B, S, latent_dim) -> (B, S) twice, float64, nats.
    """
    images, count = noise.shape[:2]

    def repeat(values: Tensor) -> Tensor:
        return values.repeat_interleave(count, 0)

    context = None if posterior.context is None else repeat(posterior.context)
    each = Posterior(repeat(posterior.mean), repeat(posterior.log_std), context)
    with autocast(x.device, precision):
        z, log_q = model.sample_posterior(each, noise.flatten(0, 1))
        log_ratio = (log_q - model.log_prior(z)).double()
        log_likelihood = model.log_likelihood(repeat(x), z).double()
    shape = (images, count)
    return (log_likelihood - log_ratio).view(shape), log_ratio.view(shape)


@torch.no_grad()
def exact(model: Model, x: Tensor, precision: str) -> PerImage:
    """The same record for a model without a latent: no sampling, no bound."""
    with autocast(x.device, precision):
        value = model.log_likelihood(x, None).double()
    zeros, ones = torch.zeros_like(value), torch.ones_like(value)
    return PerImage(value, value, zeros, ones, value[:, None])


def estimates(
    model: Model, x: Tensor, numbers: Sequence[int], samples: int, seed: int, precision: str
) -> dict[str, np.ndarray]:
    """The arrays of PerImage for test images x (N, C, H, W) of these numbers (N,), which say what
    noise each of them draws."""
    rows = ROWS[model.kind] * (MORE_ROWS_ON_A_GPU if x.is_cuda else 1)
    at_once = max(1, rows // min(samples, CHUNK))
    pieces = []
    for start in range(0, len(x), at_once):
        piece = x[start : start + at_once]
        noise_seeds = list(numbers[start : start + at_once])
        pieces.append(
            importance_sampled(model, piece, noise_seeds, samples, seed, precision)
            if model.latent_dim
            else exact(model, piece, precision)
        )
    names = (*VALUES, "curve")
    return {n: torch.cat([getattr(p, n) for p in pieces]).cpu().numpy() for n in names}
