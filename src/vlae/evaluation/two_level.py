"""Importance sampling on two levels: K samples for every test image, K' > K for a few of them.

The mean difference between the two levels on the few images corrects the mean of all. It is
precise: differences between images cancel, and the first K of the K' samples are the same.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from vlae.randomness import generator
from vlae.statistics import mean_and_error


@dataclass(frozen=True)
class TwoLevel:
    """The estimate, and the correction in it (K' instead of K samples); standard errors; nats."""

    nll: float
    nll_se: float
    difference: float
    difference_se: float


def deep_subset(images: int, wanted: int, seed: int) -> list[int]:
    """Draw the indices of the test images on the deep level, at most `images`.

    They are drawn without replacement, because a test set may be sorted by class. A larger subset
    begins with the smaller one, so that its blocks are used again.
    """
    order = torch.randperm(images, generator=generator(seed, "deep level"))
    return order[:wanted].tolist()


def two_level(nll: np.ndarray, deep: np.ndarray, index: np.ndarray | list[int]) -> TwoLevel:
    """Return the mean NLL of all images, corrected by the images with more samples:

        mean(nll) + mean(deep - nll[index])

    nll (N,): NLL of every image with K samples, nats. deep (n,): NLL of the images `index` with K'
    samples, nats.

    The n images are part of the N, so the two means covary: Cov = cov(nll, deep - nll) / N. This
    covariance and the variance of the difference are estimated on the n images.
    """
    few = nll[index]
    first, first_se = mean_and_error(nll)
    difference, difference_se = mean_and_error(deep - few)
    covariance = float(np.cov(few, deep - few)[0, 1]) / len(nll)
    variance = first_se**2 + difference_se**2 + 2 * covariance
    # The terms come from different images, so the sum can be negative if n is small.
    return TwoLevel(first + difference, math.sqrt(max(0.0, variance)), difference, difference_se)
