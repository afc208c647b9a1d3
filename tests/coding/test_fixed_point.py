"""Networks in fixed point: exact, equal to those in float64 but for the rounding."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from small_models import KINDS, small_vlae
from vlae.coding.fixed_point import (
    LARGEST,
    VALUE_BITS,
    VALUE_UNIT,
    WEIGHT_BITS,
    WEIGHT_UNIT,
    FixedPoint,
    freeze,
    rounded,
)
from vlae.coding.network import CodingModel
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.weightnorm import Linear

BITS = (torch.arange(6 * 784).view(6, 1, 28, 28) % 13 % 3 == 0).double()


def integers(values, unit):
    found = (values / unit).to(torch.int64)
    assert torch.equal(found.double() * unit, values)
    return found.numpy().astype(object)  # Python's integers have no limit


def test_a_layer_is_integer_arithmetic():
    torch.manual_seed(0)
    layer = Linear(700, 5).double()
    layer.gain.data.uniform_(-3, 3)
    layer.bias.data.normal_()
    x = rounded(torch.randn(9, 700, dtype=torch.float64) * 20)
    freeze(torch.nn.ModuleList([layer]))
    with FixedPoint(), torch.no_grad():
        found = layer(x)
    products = integers(x, VALUE_UNIT) @ integers(layer.frozen, WEIGHT_UNIT).T
    half = 1 << (WEIGHT_BITS - 1)
    expected = integers(layer.bias.detach(), VALUE_UNIT) + (products + half) // (2 * half)
    assert (integers(found, VALUE_UNIT) == expected).all()


def test_the_order_of_a_sum_does_not_matter():
    """Sums of float32 products do depend on it, by as much as a rounding."""
    torch.manual_seed(0)
    weight = (torch.randn(8, 4000, dtype=torch.float64) / WEIGHT_UNIT).round() * WEIGHT_UNIT
    x = (torch.randn(50, 4000, dtype=torch.float64) / VALUE_UNIT).round() * VALUE_UNIT
    order = torch.randperm(4000)
    shuffled = x[:, order].contiguous(), weight[:, order].contiguous()
    with FixedPoint():
        found, again = F.linear(x, weight), F.linear(*shuffled)
    assert torch.equal(found, again)
    in_float = F.linear(x.float(), weight.float())
    assert not torch.equal(in_float, F.linear(*(part.float() for part in shuffled)))


def test_rounding_is_half_up_and_clamped():
    unit = VALUE_UNIT
    x = torch.tensor([0.5, -0.5, 1.49, -1.51, 2.5], dtype=torch.float64) * unit
    assert (rounded(x) / unit).tolist() == [1, 0, 1, -2, 3]
    x = torch.tensor([1e9, -1e9], dtype=torch.float64)
    assert rounded(x).tolist() == [LARGEST, -LARGEST]


@pytest.mark.parametrize("kind", KINDS)
def test_as_in_float64_but_for_the_rounding(kind):
    model = small_vlae(kind)
    coding, x = CodingModel(model), BITS
    model.double()
    with torch.no_grad():
        z = None
        if model.latent_dim:
            posterior, found = model.encode(x), coding.encode(x)
            assert (found.mean - posterior.mean).abs().max() < 50 * VALUE_UNIT
            assert (found.log_std - posterior.log_std).abs().max() < 50 * VALUE_UNIT
            z = rounded(posterior.mean)
            u = z if model.prior_flow is None else model.prior_flow.normalise(z)[0]
            assert (coding.prior_noise(z) - u).abs().max() < 50 * VALUE_UNIT
        maps = None if z is None else model.trunk(z)
        expected = torch.sigmoid(model.logits(x, maps))
        rows, columns = torch.cat(coding.order, 1)
        found = coding.probabilities(x, z)
    assert (found - expected[:, 0, rows, columns]).abs().max() < 50 * VALUE_UNIT


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_is_bit_for_bit_the_whole(kind):
    """The receiver computes variable by variable and pixel by pixel what the sender computes at
    once."""
    coding = CodingModel(small_vlae(kind))
    z = None
    if coding.latent_dim:
        posterior = coding.encode(BITS)
        z = coding.code(posterior.mean, posterior.context)
        assert torch.equal(coding.before_flow(z, posterior.context), posterior.mean)
        assert torch.equal(coding.from_prior_noise(coding.prior_noise(z)), z)
    rows, columns = torch.cat(coding.order, 1)
    whole, seen, done = coding.probabilities(BITS, z), [], 0

    def choose(probabilities):
        nonlocal done
        seen.append(probabilities)
        start, done = done, done + len(probabilities)
        return BITS[:, 0, rows[start:done], columns[start:done]].T

    assert torch.equal(coding.draw(z, len(BITS), choose), BITS)
    assert torch.equal(torch.cat(seen).T, whole)


def test_an_image_does_not_depend_on_the_others():
    coding = CodingModel(small_vlae("iaf"))
    together, alone = coding.encode(BITS), coding.encode(BITS[3:4])
    for name in ("mean", "log_std", "context"):
        assert torch.equal(getattr(together, name)[3:4], getattr(alone, name))


def test_what_has_no_exact_form_is_refused():
    with FixedPoint():
        x = torch.ones(3)
        with pytest.raises(NotImplementedError, match="tanh has no exact form"):
            x.tanh()
        with pytest.raises(NotImplementedError, match="einsum has no exact form"):
            torch.einsum("i,i->", [x, x])


def test_indices_are_exact():
    with FixedPoint():
        assert torch.arange(4).mul(3).remainder(2).tolist() == [0, 1, 0, 1]


def test_weights_that_are_too_large_are_refused():
    layer = Linear(100, 2)
    layer.gain.data.fill_(1e5)
    with pytest.raises(OverflowError, match="too large"):
        freeze(torch.nn.ModuleList([layer]))


def test_shared_directions_keep_their_own_gains():
    torch.manual_seed(0)
    decoder = PixelCNN(0, 4, 7, 2, 1, tied=True, last_masked=True)
    for layer in decoder.modules():
        if hasattr(layer, "gain"):
            layer.gain.data.uniform_(0.5, 2)
    frozen = freeze(copy.deepcopy(decoder))
    for (block, directions), (other, _) in zip(decoder.blocks(), frozen.blocks(), strict=True):
        for i, name in enumerate(("first", "second")):
            layer = getattr(block, name)
            expected = layer.weight(directions[i] if directions else None).detach()
            assert (getattr(other, name).frozen - expected).abs().max() <= 2**-WEIGHT_BITS
    expected = decoder.last_masked.weight(decoder.directions[-1]).detach()
    assert (frozen.last_masked.frozen - expected).abs().max() <= 2**-WEIGHT_BITS


def test_units_are_powers_of_two():
    assert VALUE_UNIT == 1 / (1 << VALUE_BITS) and WEIGHT_UNIT == 1 / (1 << WEIGHT_BITS)
    assert np.float64(LARGEST) / VALUE_UNIT < 2**53
