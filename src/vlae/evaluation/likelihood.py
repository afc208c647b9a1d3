"""Estimators of log p(x) for each image (section 4.1).

    log p(x) ~ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

The encoder runs once per image. Samples are decoded in chunks, so memory does not grow with K. The
likelihood of a model without a latent variable is exact and needs no sampling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlae.evaluation.pareto import keep_largest, most_k, needed_samples, pareto_k
from vlae.hardware import autocast
from vlae.models.base import Model, Posterior, standard_normal_log_density
from vlae.randomness import generator

CHUNK = 16  # samples of an image that are decoded together; changes the noise
# Images x samples decoded together, by kind of image. This sets the peak memory.
ROWS = {"binary": 512, "colour": 64}
MORE_ROWS_ON_A_GPU = 16  # factor on a GPU, which small batches leave idle
OWN_SAMPLES = 64  # samples of q(z|x) for ELBO and KL, if the proposal is another distribution
# The values of each image, apart from its curve.
VALUES = ("log_likelihood", "elbo", "kl", "ess", "pareto_k", "samples")


@dataclass
class PerImage:
    """Estimates for N images, each array (N,) but `curve`; likelihoods and KL in nats.

    log_likelihood: the importance-sampled log p(x).
    elbo, kl: means over the samples.
    ess: effective sample size, from 1 to the number of samples.
    pareto_k: k-hat of the weights (vlae.evaluation.pareto).
    samples: the number of samples behind log_likelihood, ess and pareto_k.
    curve: (N, number of curve_points), the bound with the first k samples.
    """

    log_likelihood: Tensor
    elbo: Tensor
    kl: Tensor
    ess: Tensor
    pareto_k: Tensor
    samples: Tensor
    curve: Tensor


def curve_points(samples: int) -> list[int]:
    """Return the k of a curve: 1, 2, 4, … and the number of samples itself."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples]


@torch.no_grad()
def importance_sampled(
    model: Model,
    x: Tensor,
    noise_seeds: list[int],
    samples: int,
    seed: int,
    precision: str,
    scale: float = 1.0,
    noise_of: str = "image",
) -> PerImage:
    """Estimate log p(x) of images x (B, C, H, W); noise_seeds[b] determines the noise of image b.

    scale: factor of the standard deviations of q(z|x) in the proposal; with a flow, factor of its
        noise. ELBO and KL are those of q(z|x) itself.
    noise_of: purpose of the noise. Another purpose gives independent noise.
    """
    images = len(x)
    ks = curve_points(samples)
    with autocast(x.device, precision):
        posterior = model.encode(x)
    log_sum = torch.full((images,), -math.inf, dtype=torch.float64, device=x.device)
    log_squares = log_sum.clone()
    bound = torch.zeros(images, dtype=torch.float64, device=x.device)
    kl = bound.clone()
    curve = torch.zeros(images, len(ks), dtype=torch.float64, device=x.device)
    largest = curve[:, :0]
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        purposes = [f"{noise_of} {i}" for i in noise_seeds]
        noise = _noise(model, x, seed, purposes, start // CHUNK)[:, :count]
        log_w, log_ratio = _log_weights(model, x, posterior, noise, scale, precision)
        partial = torch.logcumsumexp(torch.cat([log_sum[:, None], log_w], 1), 1)[:, 1:]
        for column, k in enumerate(ks):
            if start < k <= start + count:
                curve[:, column] = partial[:, k - start - 1] - math.log(k)
        log_sum = partial[:, -1]
        log_squares = torch.logaddexp(log_squares, torch.logsumexp(2 * log_w, 1))
        largest = keep_largest(largest, log_w, samples)
        bound += log_w.sum(1)
        kl += log_ratio.sum(1)
    found = PerImage(
        log_sum - math.log(samples),
        bound / samples,
        kl / samples,
        torch.exp(2 * log_sum - log_squares),
        pareto_k(largest),
        torch.full_like(bound, samples),
        curve,
    )
    if scale == 1:
        return found
    few = min(samples, OWN_SAMPLES)
    own = importance_sampled(model, x, noise_seeds, few, seed, precision)
    return replace(found, elbo=own.elbo, kl=own.kl)


def adaptively_sampled(
    model: Model,
    x: Tensor,
    noise_seeds: list[int],
    samples: int,
    seed: int,
    precision: str,
    scale: float,
    most: int,
) -> PerImage:
    """Like importance_sampled, with up to `most` samples for images whose weights need more.

    The k-hat of a pilot with `samples` samples determines the number. The pilot has its own noise,
    so the number does not depend on the samples of the estimate, whose mean stays a lower bound.
    """
    found = importance_sampled(model, x, noise_seeds, samples, seed, precision, scale)
    if most <= samples:
        return found
    pilot = importance_sampled(model, x, noise_seeds, samples, seed, precision, scale, "pilot")
    wanted = [wanted_samples(k, samples, most) for k in pilot.pareto_k.tolist()]
    for count in sorted({*wanted} - {samples}):
        index = [i for i, of_image in enumerate(wanted) if of_image == count]
        seeds = [noise_seeds[i] for i in index]
        longer = importance_sampled(model, x[index], seeds, count, seed, precision, scale)
        for name in ("log_likelihood", "ess", "pareto_k", "samples"):
            getattr(found, name)[index] = getattr(longer, name)
    return found


def wanted_samples(k: float, samples: int, most: int) -> int:
    """Return the number of samples for an image whose pilot of `samples` samples has k-hat `k`.

    If k-hat is too large, the number is doubled until it is enough for that k-hat, up to `most`.
    """
    count = samples
    while k > most_k(samples) and count < min(needed_samples(k), most):
        count = min(2 * count, most)
    return count


def _noise(model: Model, x: Tensor, seed: int, purposes: list[str], chunk: int) -> Tensor:
    """Return the standard normal noise (B, CHUNK, latent_dim) of one chunk of samples."""
    full = x.dtype if x.dtype == torch.float64 else torch.float32
    shape = (CHUNK, model.latent_dim)
    each = [torch.randn(shape, generator=generator(seed, p, chunk)) for p in purposes]
    return torch.stack(each).to(x.device, full)


def _log_weights(
    model: Model, x: Tensor, posterior: Posterior, noise: Tensor, scale: float, precision: str
) -> tuple[Tensor, Tensor]:
    """Return log p(x|z) + log p(z) - log q(z|x), and log q(z|x) - log p(z); q is the proposal.

    noise: (B, S, latent_dim), standard normal. Both results are (B, S), float64, in nats.

    With a scale other than 1, the proposal transforms noise ~ N(0, scale^2 I). The model computes
    log q as for standard normal noise, so the difference of the two log densities is added.
    """
    images, count = noise.shape[:2]

    def repeat(values: Tensor) -> Tensor:
        return values.repeat_interleave(count, 0)

    context = None if posterior.context is None else repeat(posterior.context)
    each = Posterior(repeat(posterior.mean), repeat(posterior.log_std), context)
    with autocast(x.device, precision):
        flat = noise.flatten(0, 1)
        if scale == 1:
            z, log_q = model.sample_posterior(each, flat)
        else:
            z, log_q = model.sample_posterior(each, scale * flat)
            density = standard_normal_log_density(flat) - flat.shape[1] * math.log(scale)
            log_q = log_q + density - standard_normal_log_density(scale * flat)
        log_ratio = (log_q - model.log_prior(z)).double()
        log_likelihood = model.log_likelihood(repeat(x), z).double()
    shape = (images, count)
    return (log_likelihood - log_ratio).view(shape), log_ratio.view(shape)


@torch.no_grad()
def exact(model: Model, x: Tensor, precision: str) -> PerImage:
    """Return the exact values of images x (N, C, H, W), for a model without a latent variable."""
    with autocast(x.device, precision):
        value = model.log_likelihood(x, None).double()
    zeros, ones = torch.zeros_like(value), torch.ones_like(value)
    return PerImage(value, value, zeros, ones, zeros, ones, value[:, None])


def estimates(
    model: Model,
    x: Tensor,
    numbers: Sequence[int],
    samples: int,
    seed: int,
    precision: str,
    scale: float = 1.0,
    most: int = 0,
) -> dict[str, np.ndarray]:
    """Return the arrays of PerImage for test images x (N, C, H, W).

    numbers: indices (N,) of the test images, which determine the noise of each.
    scale, most: as in adaptively_sampled.
    """
    rows = ROWS[model.kind] * (MORE_ROWS_ON_A_GPU if x.is_cuda else 1)
    at_once = max(1, rows // min(samples, CHUNK))
    pieces = []
    for start in range(0, len(x), at_once):
        piece = x[start : start + at_once]
        noise_seeds = list(numbers[start : start + at_once])
        pieces.append(
            adaptively_sampled(model, piece, noise_seeds, samples, seed, precision, scale, most)
            if model.latent_dim
            else exact(model, piece, precision)
        )
    names = (*VALUES, "curve")
    return {n: torch.cat([getattr(p, n) for p in pieces]).cpu().numpy() for n in names}
