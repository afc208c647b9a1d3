"""Importance sampling in two levels: K samples for every test image, and many more for a few.

The mean difference between the two on those few corrects the mean of all. It is precise: what
differs between images cancels, and the first K of an image's K' samples are those of level one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from vlae.randomness import generator
from vlae.statistics import mean_and_error


@dataclass(frozen=True)
class TwoLevel:
    """Nats: the estimate and the correction in it (K' - K samples), with standard errors."""

    nll: float
    nll_se: float
    difference: float
    difference_se: float


def deep_subset(images: int, wanted: int, seed: int) -> list[int]:
    """Numbers of the test images of the deep level, in the order drawn: at most all of them.

    Without replacement, and from the count alone: a test set may be sorted by class. A larger
    subset begins with the smaller one and so goes on from its blocks.
    """
    order = torch.randperm(images, generator=generator(seed, "deep level"))
    return order[:wanted].tolist()


def two_level(nll: np.ndarray, deep: np.ndarray, index: np.ndarray | list[int]) -> TwoLevel:
    """Mean NLL of all images, corrected by those that have been given more samples.

    nll (N,): every image with K samples; deep (n,): images `index` with K' samples; nats.

        mean(nll) + mean(deep - nll[index])

    The few are some of all, so the two means covary: Cov = cov(nll, deep - nll) / N. This
    covariance and the variance of the difference are estimated on the n images.
    """
    few = nll[index]
    first, first_se = mean_and_error(nll)
    difference, difference_se = mean_and_error(deep - few)
    covariance = float(np.cov(few, deep - few)[0, 1]) / len(nll)
    variance = first_se**2 + difference_se**2 + 2 * covariance
    # The terms stem from different images: for a handful the sum could fall below zero.
    return TwoLevel(first + difference, math.sqrt(max(0.0, variance)), difference, difference_se)
