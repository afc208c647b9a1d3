"""Means over images and their standard errors."""

import math

import numpy as np


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of at least two values (n,) and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
