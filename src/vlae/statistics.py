"""Means over images, and how well they are known."""

import math

import numpy as np


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of two or more values (n,) and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
