"""The discretized mixture of logistics against its definition, and as a distribution."""

from decimal import Decimal, localcontext

import pytest
import torch

from vlae.images import scaled
from vlae.nn.logistic_mixture import (
    bin_log_mass,
    draw_component,
    draw_value,
    mixture_log_likelihood,
)

VALUES = torch.arange(256)


def by_definition(value: int, mean: float, log_scale: float) -> float:
    """log of the difference of the distribution function, in 60 digits."""
    with localcontext(prec=60):
        scale = Decimal(log_scale).exp()
        centre = Decimal(value) / Decimal("127.5") - 1 - Decimal(mean)
        if centre > 0:  # by symmetry: what is small has its digits below the mean
            return by_definition(255 - value, -mean, log_scale)

        def below(x):
            return 1 / (1 + (-x / scale).exp())

        half = Decimal(1) / 255
        high = 1 if value == 255 else below(centre + half)
        low = 0 if value == 0 else below(centre - half)
        return float((high - low).ln())


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 3.0])
@pytest.mark.parametrize("mean", [-1.3, 0.0031, 0.97])
def test_mass_of_a_bin_is_that_of_the_definition(mean, log_scale):
    values = [0, 1, 2, 100, 127, 128, 129, 200, 253, 254, 255]
    x = scaled(torch.tensor(values).double())
    place = torch.tensor([mean, log_scale], dtype=torch.float64)
    found = bin_log_mass(x, *place)
    expected = [by_definition(v, mean, log_scale) for v in values]
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    single = bin_log_mass(x.float(), *place.float())
    assert single.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def parameters(pixels, components=10):
    torch.manual_seed(0)
    logits = torch.randn(pixels, components, 1, 1).double()
    means = torch.randn(pixels, 3, components, 1, 1).double()
    log_scales = torch.randn(pixels, 3, components, 1, 1).double() * 2 - 3
    return logits, means, log_scales


def test_mixture_is_that_of_its_components():
    logits, means, log_scales = parameters(6)
    x = scaled(torch.randint(0, 256, (6, 3, 1, 1)).double())
    found = mixture_log_likelihood(x, logits, means, log_scales)
    for i in range(6):
        total = 0.0
        for k in range(10):
            weight = torch.softmax(logits[i, :, 0, 0], 0)[k].item()
            floored = log_scales[i, :, k, 0, 0].clamp(min=-7.0)
            for c in range(3):
                mass = bin_log_mass(x[i, c, 0, 0], means[i, c, k, 0, 0], floored[c])
                weight *= mass.exp().item()
            total += weight
        assert found[i].exp().item() == pytest.approx(total, rel=1e-10)


def test_each_channel_sums_to_one_over_all_its_values():
    """And so the three together: what depends on red is summed with red held fixed."""
    logits, means, log_scales = parameters(4)
    mass = bin_log_mass(
        scaled(VALUES.double()).view(-1, 1, 1, 1, 1, 1), means, log_scales.clamp(min=-7.0)
    )
    one = torch.logsumexp(mass, 0)
    assert torch.allclose(one, torch.zeros_like(one), atol=1e-12)
    # The sum over blue of p(red, green, blue) leaves p(red, green), whatever those two are.
    first = torch.randint(0, 256, (4, 2, 1, 1)).double()
    joint = []
    for value in VALUES:
        x = torch.cat([first, torch.full((4, 1, 1, 1), value.item()).double()], 1)
        joint.append(mixture_log_likelihood(scaled(x), logits, means, log_scales))
    weights = torch.log_softmax(logits, 1)
    two = bin_log_mass(
        scaled(first).unsqueeze(2), means[:, :2], log_scales[:, :2].clamp(min=-7.0)
    ).sum(1)
    expected = torch.logsumexp(weights + two, 1)
    assert torch.allclose(torch.logsumexp(torch.stack(joint), 0), expected, atol=1e-10)


def test_gradients_are_finite_far_out():
    means = torch.tensor([50.0, -50.0, 0.0], requires_grad=True)
    log_scales = torch.full((3,), -7.0, requires_grad=True)
    mass = bin_log_mass(scaled(torch.tensor([0, 255, 13])), means, log_scales)
    gradients = torch.autograd.grad(mass.sum(), (means, log_scales))
    assert all(torch.isfinite(g).all() for g in (mass, *gradients))


@pytest.mark.parametrize("log_scale", [19.9, 20.1, 40.0, 87.0, 88.0, 100.0])
def test_a_scale_may_be_as_large_as_it_likes(log_scale):
    """The mass of an inner bin falls with it, as by definition, and its gradient leads back."""
    values = [0, 1, 128, 254, 255]
    x = scaled(torch.tensor(values))
    mean = torch.full((5,), 0.3, requires_grad=True)
    scale = torch.full((5,), log_scale, requires_grad=True)
    mass = bin_log_mass(x, mean, scale)
    rounded = scale[0].item()  # 19.9 in single precision is another number
    assert mass.tolist() == pytest.approx(
        [by_definition(v, 0.3, rounded) for v in values], rel=1e-5
    )
    found = torch.autograd.grad(mass.sum(), (mean, scale))
    double = [t.detach().double().requires_grad_() for t in (mean, scale)]
    exact = torch.autograd.grad(bin_log_mass(x.double(), *double).sum(), double)
    for a, b in zip(found, exact, strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-6)
    assert torch.allclose(exact[1], torch.tensor([0.0, -1, -1, -1, 0]).double(), atol=1e-7)


@pytest.mark.parametrize("log_scale", [88.0, 1e4, 3e38])
def test_a_mixture_and_its_gradients_stay_finite(log_scale):
    torch.manual_seed(0)
    x = scaled(torch.randint(0, 256, (2, 3, 4, 4)))
    logits, means = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 5, 4, 4)
    log_scales = torch.randn(2, 3, 5, 4, 4)
    log_scales[:, :, 1:3] = log_scale
    parameters = [t.requires_grad_() for t in (logits, means, log_scales)]
    found = mixture_log_likelihood(x, *parameters)
    for tensor in (found, *torch.autograd.grad(found.sum(), parameters)):
        assert torch.isfinite(tensor).all()
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75])
    drawn = draw_value(torch.zeros(4), torch.full((4,), log_scale), uniform)
    assert drawn[[0, 1, 3]].tolist() == [-1, -1, 1] and torch.isfinite(drawn).all()


def test_in_the_range_of_trainings_not_a_bit_depends_on_how_large_scales_are_treated(monkeypatch):
    torch.manual_seed(0)
    x, mean = scaled(torch.randint(0, 256, (50_000,))), torch.randn(50_000)
    log_scale = torch.rand(50_000) * 19 - 7
    found = bin_log_mass(x, mean, log_scale)
    monkeypatch.setattr("vlae.nn.logistic_mixture.FLAT_FROM", 80.0)
    assert torch.equal(found, bin_log_mass(x, mean, log_scale))


def test_drawn_values_follow_the_mass_of_their_bins():
    """By inversion: the uniform numbers that give a value are an interval of its mass."""
    fine = ((torch.arange(400_000) + 0.5) / 400_000).double()
    for mean, log_scale in ((0.2, -2.0), (-1.05, -3.0), (0.9, 0.0)):
        parameter = torch.full_like(fine, mean), torch.full_like(fine, log_scale)
        x = draw_value(*parameter, fine)
        assert (x.diff() >= 0).all()
        counts = torch.bincount(((x + 1) * 127.5).round().long(), minlength=256) / len(fine)
        mass = bin_log_mass(scaled(VALUES.double()), parameter[0][:1], parameter[1][:1]).exp()
        assert torch.allclose(counts.double(), mass, atol=6e-6)


def test_components_are_drawn_by_their_weights():
    fine = ((torch.arange(100_000) + 0.5) / 100_000).double()
    logits = torch.tensor([0.3, -1.0, 2.0]).double()
    drawn = draw_component(logits.expand(len(fine), 3), fine)
    shares = torch.bincount(drawn, minlength=3) / len(fine)
    assert torch.allclose(shares.double(), torch.softmax(logits, 0), atol=2e-5)
    last = draw_component(torch.zeros(1, 3), torch.tensor([1.0]))
    assert last.item() == 2  # the weights' sum may round below a number drawn
