"""Can a mean of importance weights be trusted? Pareto k-hat of their largest ones.

Vehtari et al., "Pareto smoothed importance sampling", JMLR 25 (2024). A generalized Pareto
distribution is fitted to the largest weights of an image; its shape k says how heavy their tail
is: the weights have a finite variance below 1/2, a finite mean below 1. Above 0.7 the error of
the mean falls so slowly with the number of samples that no affordable number of them helps.
"""

import math

import torch
from torch import Tensor

SMALLEST_TAIL = 5  # weights; fewer are not fitted
MOST_K = 0.7  # however many samples there are
ROUNDING = 1e-6  # nats between the largest weights that are no difference
TINY = 1e-300


def tail_length(samples: int) -> int:
    """How many of so many weights are fitted."""
    return min(samples // 5, int(3 * math.sqrt(samples)))


def most_k(samples: int) -> float:
    """The k-hat up to which a mean of so many weights can be trusted (2 or more)."""
    return min(1 - 1 / math.log10(samples), MOST_K) if samples > 10 else 0.0


def needed_samples(k: float) -> float:
    """So many samples, of weights with k-hat `k`, have a mean that can be trusted."""
    return 10 ** min(300.0, 1 / (1 - max(0.0, k))) if k < 1 else math.inf


def keep_largest(largest: Tensor, more: Tensor, samples: int) -> Tensor:
    """The largest log weights (B, tail_length + 1 or fewer) of those kept and of `more` (B, S):
    all that `pareto_k` needs of `samples` of them."""
    both = torch.cat([largest, more], 1)
    return both.topk(min(tail_length(samples) + 1, both.shape[1]), 1).values


def pareto_k(largest: Tensor) -> Tensor:
    """k-hat (B,) of the largest log weights (B, M + 1), in falling order: of the M by which they
    exceed the last of them.

    NaN where M is below 5. 0 where they are equal to rounding: bounded weights have no tail.
    """
    tail = largest.double().flip(1) - largest[:, :1].double()  # rising; the largest weight is 1
    if tail.shape[1] <= SMALLEST_TAIL:
        return torch.full_like(tail[:, 0], math.nan)
    weights = tail.exp()
    over = (weights[:, 1:] - weights[:, :1]).clamp(min=TINY)
    return torch.where(tail[:, 0] > -ROUNDING, 0.0, generalized_pareto_k(over))


def generalized_pareto_k(x: Tensor) -> Tensor:
    """The shape k (B,) of a generalized Pareto distribution that begins at 0, from draws x (B, n)
    in rising order.

    The posterior mean of Zhang & Stephens (Technometrics 51, 2009), drawn towards 1/2 by the
    weight of ten more draws, as in PSIS. With theta = -k / sigma, k = mean log(1 - theta x).
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
