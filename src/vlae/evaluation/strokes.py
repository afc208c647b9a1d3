"""Measures the strokes of binary images: how thick they are and how much they lean."""

import numpy as np


def thickness(images: np.ndarray) -> np.ndarray:
    """Return 2 x area / perimeter of the ink, in pixels, float64 (N,); 0 without ink.

    images: uint8 (N, H, W) of 0 and 1. The perimeter is the number of edges between a pixel of ink
    and one of the background, which continues outside of the image. A bar that is much longer
    than wide has nearly its width.
    """
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.int64)
    area = framed.sum((1, 2))
    perimeter = sum(abs(np.diff(framed, axis=axis)).sum((1, 2)) for axis in (1, 2))
    return 2 * area / np.maximum(perimeter, 1)


def slant(images: np.ndarray) -> np.ndarray:
    """Return the columns to the right for each row up, float64 (N,): -mu11 / mu02.

    images: uint8 (N, H, W) of 0 and 1. mu11 is the covariance of column and row of the ink, and
    mu02 the variance of its rows, which count downwards. Deskewing shears an image by this number.
    It is positive for ink that leans to the right, as /, and 0 if all ink is in one row.
    """
    ink, (rows, columns) = images.astype(np.int64), map(np.arange, images.shape[1:])
    by_row, by_column = ink.sum(2), ink.sum(1)
    area, row, column = by_row.sum(1), by_row @ rows, by_column @ columns
    # In integers, so that the ink of an upright shape has exactly the slant 0.
    covariance = area * np.einsum("nij,i,j->n", ink, rows, columns) - row * column
    variance = area * (by_row @ rows**2) - row**2
    return 0.0 - covariance / np.where(variance > 0, variance, 1)
