"""The toy with one global bit: its number of bits, and which windows see the global one."""

import math

import numpy as np
import pytest

from miniature import PROJECT
from vlae import one_bit
from vlae.config.load import load_params
from vlae.data.formats.registry import read
from vlae.report.tables.information import window

PARAMS = load_params(PROJECT / "params.yaml")
RUNS = [run for run in PARAMS.runs.values() if run.dataset == "one_bit"]


def test_images_are_made_of_fair_independent_bits():
    count = 20000
    images = one_bit.draw("test", count)
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8
    rows = [row for row in range(28) if row % one_bit.SPACING]
    coins = np.stack([images[:, 0, 0], *(images[:, row, 0] for row in rows)], 1).astype(float)
    assert coins.shape[1] == one_bit.BITS
    bound = 5 / math.sqrt(count)  # five standard errors
    np.testing.assert_allclose(coins.mean(0), 0.5, atol=bound / 2)
    correlation = np.corrcoef(coins.T) - np.eye(one_bit.BITS)
    assert np.abs(correlation).max() < bound
    # The coins determine the image.
    again = np.repeat(images[:, :, :1], 28, 2)
    again[:, ::4] = 0
    again[:, ::4, ::4] = images[:, :1, :1]
    assert (again == images).all()


def test_the_seed_is_the_name():
    assert (one_bit.draw("a", 9) == one_bit.draw("a", 9)).all()
    assert (one_bit.draw("a", 9) != one_bit.draw("b", 9)).any()
    assert (one_bit.draw("a", 9)[:5] == one_bit.draw("a", 5)).all()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_exact_kl_counts_the_bits_that_no_window_shows(run):
    """The exact code holds the bits whose pixels, but for the first, see none of their copies."""
    seen = window(run.model.decoder)
    far = max((max(map(abs, offset)) for offset in seen), default=0)
    images = one_bit.draw("windows", 4000)
    hidden = 0
    for row, column in ((4, 0), (0, 4), (8, 12), (24, 24), (1, 1), (5, 27), (27, 1)):
        places = [(row + i, column + j) for i, j in seen]
        places = [(i, j) for i, j in places if 0 <= i < 28 and 0 <= j < 28]
        copies = [(images[:, i, j] == images[:, row, column]).all() for i, j in places]
        hidden += not any(copies)
    if far == 0:
        assert hidden == 7 and one_bit.exact_kl(0) == one_bit.exact_nll()
    elif far < one_bit.SPACING:
        assert hidden == 4 and one_bit.exact_kl(far) == math.log(2)  # only the global bit's
    else:
        assert hidden == 0 and one_bit.exact_kl(far) == 0


def test_the_data_set_draws_other_images_for_each_split():
    spec = PARAMS.dataset("one_bit")
    splits = read(spec, {})
    assert {name: len(images) for name, images in splits.items()} == spec["splits"]
    assert (splits["train"][:1000] != splits["valid"]).any(axis=(1, 2)).all()
