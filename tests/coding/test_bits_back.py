"""Bits-back coding: what comes out is what went in, at the length that the bound says."""

import math

import numpy as np
import pytest
import torch

from miniature import made_up_arrays
from small_models import KINDS, small_vlae
from vlae.coding import bits_back
from vlae.coding.bits_back import BitsBack, Stack, below_the_stack, groups
from vlae.coding.network import CodingModel
from vlae.errors import VlaeError


def images(count, seed=0):
    """uint8 (count, 28, 28)."""
    blobs = torch.from_numpy(made_up_arrays("fixed", 1, 1, count)["test"])
    noise = torch.rand(blobs.shape, generator=torch.Generator().manual_seed(seed)) < 0.02
    return (blobs + noise) % 2


def as_input(x):
    return x.double().unsqueeze(1)


def coder(kind="af"):
    return BitsBack(CodingModel(small_vlae(kind)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 45])
def test_the_very_same_images(kind, count):
    x = images(count)
    words = coder(kind).encode(x)
    assert words.dtype == np.uint32
    assert torch.equal(coder(kind).decode(words, count), x)


def test_all_black_and_all_white():
    x = torch.zeros(20, 28, 28, dtype=torch.uint8)
    x[::3] = 1
    assert torch.equal(coder().decode(coder().encode(x), len(x)), x)


@pytest.mark.parametrize("kind", ["af", "iaf", "gaussian"])
def test_the_length_is_the_negative_bound(kind):
    """Mean length of a group = -ELBO, within the standard error of both."""
    x, model = images(150), small_vlae(kind)
    sizes = []
    bits = BitsBack(CodingModel(model))
    stack, start = Stack(), 0
    for size in groups(len(x)):
        before = stack.coder.num_valid_bits() - 32 * stack.added
        bits.push_group(stack, x[start : start + size])
        start += size
        after = stack.coder.num_valid_bits() - 32 * stack.added
        sizes.append((size, after - before))
    model.double()
    noise = torch.randn(16, len(x), model.latent_dim, dtype=torch.float64)
    with torch.no_grad():
        bounds = torch.stack(
            [a - b for a, b in (model.bound_terms(as_input(x), e) for e in noise)]
        )
    expected = -bounds.mean(0).sum().item() / math.log(2)
    error = bounds.std(0).square().sum().sqrt().item() / math.log(2)
    total = sum(length for _, length in sizes)
    assert abs(total - expected) < 4 * error + 0.002 * expected
    assert stack.words()[0] == below_the_stack(stack.added - 1) or stack.added == 0


def test_without_a_code_the_length_is_the_likelihood():
    x, model = images(60), small_vlae("no code")
    words = BitsBack(CodingModel(model)).encode(x)
    with torch.no_grad():
        expected = -model.double().log_likelihood(as_input(x), None).sum().item() / math.log(2)
    assert abs(32 * len(words) - expected) < 64 + 0.001 * expected


def far_away(x: torch.Tensor) -> CodingModel:
    """A model that puts half of the images where its prior has no bins."""
    model = small_vlae("gaussian")
    with torch.no_grad():
        model.mean.bias.zero_()
        farthest = CodingModel(model).encode(as_input(x)).mean.abs().amax(1)
        model.mean.gain.mul_(64 / farthest.median())
    return CodingModel(model)


def test_images_that_the_model_cannot_code_are_stored():
    x = images(30)
    model = far_away(x)
    u = model.prior_noise(model.code(model.encode(as_input(x)).mean, None))
    outside = (u.abs() >= 64).any(1)
    assert 0 < outside.sum() < len(x)
    words = BitsBack(model).encode(x)
    assert torch.equal(BitsBack(model).decode(words, len(x)), x)


def test_groups():
    for count in (1, 7, 100, 3000):
        assert sum(groups(count)) == count
    sizes = groups(10_000)
    assert sizes[0] == 1 and max(sizes) == bits_back.LARGEST_GROUP
    assert sizes[:-1] == sorted(sizes[:-1])


def test_the_first_groups_are_the_same_for_any_number_of_images():
    assert groups(500)[:20] == groups(5000)[:20]


@pytest.mark.parametrize("kind", ["af", "no code"])
def test_other_words_or_another_number_of_images_are_noticed(kind):
    x = images(12)
    words = coder(kind).encode(x)
    damaged = words.copy()
    damaged[0] ^= 1
    with pytest.raises(VlaeError, match="left over"):
        coder(kind).decode(damaged, 12)
    with pytest.raises(VlaeError, match="left over"):
        coder(kind).decode(words, 11)


def test_words_below_the_stack_have_no_pattern():
    words = np.array([below_the_stack(i) for i in range(4000)], np.uint32)
    assert len(np.unique(words)) == len(words) and words.all()
    ones = np.unpackbits(words.view(np.uint8)).reshape(len(words), 32).mean(0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / len(words) ** 0.5
