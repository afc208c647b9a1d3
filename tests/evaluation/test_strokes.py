"""Thickness and slant of shapes whose values are known."""

import numpy as np
import pytest

from vlae.evaluation.strokes import slant, thickness


def bar(width, length, row=3, column=10):
    image = np.zeros((28, 28), np.uint8)
    image[row : row + length, column : column + width] = 1
    return image


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_thickness_of_a_bar(width):
    """2wl / (2w + 2l), also at the edge of the image."""
    for column in (10, 0):
        images = np.stack([bar(width, length, 0, column) for length in (5, 20, 28)])
        wanted = [width * length / (width + length) for length in (5, 20, 28)]
        assert thickness(images) == pytest.approx(wanted)
    assert thickness(bar(width, 28)[None])[0] == pytest.approx(width, rel=0.2)


def test_an_inner_edge_is_part_of_the_perimeter():
    ring = bar(9, 9)
    ring[6:9, 13:16] = 0
    assert thickness(ring[None])[0] == pytest.approx(2 * (81 - 9) / (36 + 12))


@pytest.mark.parametrize("shear", [-2, -1, 0, 1, 2])
def test_slant_of_a_sheared_bar(shear):
    """Each row lies `shear` columns to the right of the one below it."""
    image = np.zeros((28, 28), np.uint8)
    for row in range(4, 11):
        left = 13 + shear * (7 - row)
        image[row, left : left + 3] = 1
    assert slant(image[None])[0] == pytest.approx(shear, abs=1e-12)
    assert slant(image[None, :, ::-1])[0] == pytest.approx(-shear, abs=1e-12)


def test_slant_is_the_regression_of_column_on_row():
    image = np.random.default_rng(0).integers(0, 2, (28, 28), np.uint8)
    rows, columns = np.nonzero(image)
    covariance = np.cov(rows, columns)
    assert slant(image[None])[0] == pytest.approx(-covariance[0, 1] / covariance[0, 0])


def test_without_ink_or_rows():
    images = np.stack([np.zeros((28, 28), np.uint8), bar(9, 1)])
    assert slant(images).tolist() == [0, 0]
    assert thickness(images).tolist() == [0, pytest.approx(2 * 9 / 20)]
