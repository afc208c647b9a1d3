"""Pareto k-hat of importance weights, which shows whether their mean can be trusted.

Vehtari et al., "Pareto smoothed importance sampling", JMLR 25 (2024). A generalized Pareto
distribution is fitted to the largest weights of an image. Its shape k measures how heavy their
tail is: the variance is finite if k < 1/2, the mean if k < 1. If k > 0.7, the error of the mean
falls so slowly that no affordable number of samples is enough.
"""

import math

import numpy as np
import torch
from torch import Tensor

SMALLEST_TAIL = 5  # a shorter tail is not fitted
MOST_K = 0.7  # for any number of samples
ROUNDING = 1e-6  # nats; closer log weights are equal
TINY = 1e-300


def tail_length(samples: int) -> int:
    """Return how many of `samples` weights are fitted."""
    return min(samples // 5, int(3 * math.sqrt(samples)))


def most_k(samples: int) -> float:
    """Return the largest k-hat with which a mean of `samples` (2 or more) can be trusted."""
    return min(1 - 1 / math.log10(samples), MOST_K) if samples > 10 else 0.0


def needed_samples(k: float) -> float:
    """Return how many weights with k-hat `k` have a mean that can be trusted."""
    return 10 ** min(300.0, 1 / (1 - max(0.0, k))) if k < 1 else math.inf


def keep_largest(largest: Tensor, more: Tensor, samples: int) -> Tensor:
    """Return the largest log weights (B, up to tail_length + 1) of `largest` and `more` (B, S).

    These are all that `pareto_k` needs of `samples` weights.
    """
    both = torch.cat([largest, more], 1)
    return both.topk(min(tail_length(samples) + 1, both.shape[1]), 1).values


def pareto_k(largest: Tensor) -> Tensor:
    """Return k-hat (B,) from the M + 1 largest log weights (B, M + 1), in descending order.

    The smallest of them is the threshold; the distribution is fitted to the M excesses over it.
    k-hat is NaN if M < 5, and 0 if all are equal up to rounding: bounded weights have no tail.
    """
    tail = (
        largest.double().flip(1) - largest[:, :1].double()
    )  # ascending; the largest weight becomes 1
    if tail.shape[1] <= SMALLEST_TAIL:
        return torch.full_like(tail[:, 0], math.nan)
    weights = tail.exp()
    over = (weights[:, 1:] - weights[:, :1]).clamp(min=TINY)
    return torch.where(tail[:, 0] > -ROUNDING, 0.0, generalized_pareto_k(over))


def generalized_pareto_k(x: Tensor) -> Tensor:
    """Estimate the shape k (B,) of generalized Pareto distributions on [0, inf).

    x: draws (B, n) in ascending order.

    This is the posterior mean of Zhang & Stephens (Technometrics 51, 2009), shrunk towards 1/2
    with the weight of ten draws, as in PSIS. With theta = -k / sigma, k = mean log(1 - theta x).
    """
    n = x.shape[1]
    count = 30 + math.isqrt(n)
    place = torch.arange(1, count + 1, dtype=x.dtype, device=x.device) - 0.5
    quartile = x[:, int(n / 4 + 0.5) - 1 : int(n / 4 + 0.5)]
    theta = 1 / x[:, -1:] + (1 - (count / place).sqrt()) / (3 * quartile)
    k = _shape(theta, x)
    log_profile = n * ((-theta / k).log() - k - 1)
    best = (theta * torch.softmax(log_profile, 1)).sum(1, keepdim=True)
    return (n * _shape(best, x)[:, 0] + 5) / (n + 10)


def _shape(theta: Tensor, x: Tensor) -> Tensor:
    return torch.log1p(-theta.unsqueeze(2) * x.unsqueeze(1)).mean(2)


def pareto_summary(values: dict[str, np.ndarray]) -> dict | None:
    """Summarise the k-hat of all images for the record; None if there are too few samples.

    values: pareto_k, ess and samples of each image (vlae.evaluation.likelihood.PerImage).
    """
    k, ess = values["pareto_k"], values["ess"]
    if np.isnan(k).any():
        return None
    limits = np.array([most_k(int(samples)) for samples in values["samples"]])
    return {
        "images": len(k),
        "samples": int(values["samples"].max()),
        "k_median": float(np.median(k)),
        "k_most": float(limits.min()),
        "failing": float((k > limits).mean()),
        "ess_median": float(np.median(ess)),
    }
