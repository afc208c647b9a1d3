"""What the entropy coder is told: probabilities of binary pixels and of latent variables.

A latent variable is a multiple of 2^-12 (vlae.coding.fixed_point). It is coded as a bin of width
2^-5, with its probability under a normal distribution, and its place in the bin, 7 bits that are
uniform. Probabilities are integers in units of 2^-24, as in the coder, and every integer is
computed exactly.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import constriction
import numpy as np
import torch
from torch import Tensor

from vlae.coding.fixed_point import VALUE_UNIT
from vlae.coding.tables import PROBABILITY_BITS, normal_distribution, reciprocal_std

BIN = 2.0**-5
PLACES = int(BIN / VALUE_UNIT)  # multiples of VALUE_UNIT in a bin
POSTERIOR_BINS = 512  # of a variable under q(z|x): 8 units on either side of its mean
PRIOR_BINS = 4096  # of a variable under N(0, 1): from -64 to 64

pixels = constriction.stream.model.Bernoulli(perfect=False)
place = constriction.stream.model.Uniform(PLACES)
bins = constriction.stream.model.Categorical(perfect=False)
new_coder = constriction.stream.stack.AnsCoder
Coder: TypeAlias = Any  # constriction says nothing about types
Model: TypeAlias = Any


def bin_probabilities(edges: Tensor) -> np.ndarray:
    """Return the probabilities of the bins between `edges`, (..., n + 1) -> float32 (..., n).

    edges: the normal distribution's argument at each edge, multiples of 2^-24. They are integers
    that sum to 2^24 - n: the coder adds 1 to each. The tails beyond the edges belong to the first
    and the last bin.
    """
    total = 2**PROBABILITY_BITS - (edges.shape[-1] - 1)
    below = (normal_distribution(edges) * total).floor()
    below[..., 0], below[..., -1] = 0, total
    return below.diff(dim=-1).float().numpy()


def prior_bins() -> Model:
    """Return the distribution of the bins of a variable under N(0, 1)."""
    edges = (torch.arange(PRIOR_BINS + 1, dtype=torch.float64) - PRIOR_BINS // 2) * BIN
    return constriction.stream.model.Categorical(bin_probabilities(edges), perfect=False)


@dataclass(frozen=True)
class Posterior:
    """q(z|x) of some variables in fixed point: the first bin of each (n,), and the probabilities
    of POSTERIOR_BINS bins from there (n, POSTERIOR_BINS)."""

    first: Tensor
    probabilities: np.ndarray


def posterior_bins(mean: Tensor, log_std: Tensor) -> Posterior:
    """Return N(mean, exp(log_std)^2) in bins: (n,) each, multiples of VALUE_UNIT."""
    first = (mean / BIN).floor() - POSTERIOR_BINS // 2
    edges = first.unsqueeze(1) + torch.arange(POSTERIOR_BINS + 1, dtype=torch.float64)
    standardised = (edges * BIN - mean.unsqueeze(1)) * reciprocal_std(log_std).unsqueeze(1)
    return Posterior(first, bin_probabilities(standardised))


def pop_posterior(coder: Coder, posterior: Posterior) -> Tensor:
    """Take variables (n,) distributed as `posterior` from the coder's bits."""
    found = coder.decode(bins, posterior.probabilities)
    within = coder.decode(place, len(found))
    return (posterior.first + torch.from_numpy(found)) * BIN + torch.from_numpy(
        within
    ) * VALUE_UNIT


def push_posterior(coder: Coder, posterior: Posterior, z: Tensor) -> None:
    """Give the bits back that `pop_posterior` took for z (n,)."""
    found, within = _split(z)
    coder.encode_reverse(within, place)
    coder.encode_reverse(_int32(found - posterior.first), bins, posterior.probabilities)


def within_prior(u: Tensor) -> Tensor:
    """Return True for each variable that `push_prior` can code."""
    return u.abs() < PRIOR_BINS // 2 * BIN


def push_prior(coder: Coder, prior: Model, u: Tensor) -> None:
    """Code variables u (n,) under N(0, 1)."""
    found, within = _split(u)
    coder.encode_reverse(within, place)
    coder.encode_reverse(_int32(found + PRIOR_BINS // 2), prior)


def pop_prior(coder: Coder, prior: Model, count: int) -> Tensor:
    """Decode `count` variables that were coded under N(0, 1)."""
    found = torch.from_numpy(coder.decode(prior, count)).double() - PRIOR_BINS // 2
    within = coder.decode(place, count)
    return found * BIN + torch.from_numpy(within) * VALUE_UNIT


def _split(z: Tensor) -> tuple[Tensor, np.ndarray]:
    """Return the bin and the place in it of each multiple of VALUE_UNIT."""
    found = (z / BIN).floor()
    return found, _int32((z - found * BIN) / VALUE_UNIT)


def _int32(values: Tensor) -> np.ndarray:
    return values.to(torch.int32).numpy()
