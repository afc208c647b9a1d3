"""The weight of the KL as a control loop: it settles, it never exceeds 1, it can be put back."""

import math
from itertools import pairwise

import pytest
import torch

from vlae.training.free_bits import RunningGamma, next_gamma

FLOOR = 40.0


def run(gamma, response, steps):
    """KLs and gammas; `response`: gamma, the KL before -> KL."""
    kl, kls, gammas = response(gamma, 0.0), [], []
    for _ in range(steps):
        gamma = next_gamma(gamma, kl, FLOOR)
        gammas.append(gamma)
        kl = response(gamma, kl)
        kls.append(kl)
    return kls, gammas


def within(kl):
    return FLOOR <= kl <= 1.05 * FLOOR


@pytest.mark.parametrize("power", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("start", [1.0, 0.03])
def test_settles_at_the_floor(power, start):
    """On a KL that falls as gamma rises, 20 nats at gamma 1: in the band, and there it stays."""
    kls, gammas = run(start, lambda g, _: 20 * g**-power, 400)
    assert all(within(kl) for kl in kls[-50:])
    assert len(set(gammas[-50:])) == 1 and 0 < gammas[-1] < 1


@pytest.mark.parametrize("inertia", [0.8, 0.95])
def test_keeps_a_slow_kl_near_the_floor(inertia):
    """The KL of a training follows gamma slowly: in mean it is at the floor all the same."""
    kls, gammas = run(1.0, lambda g, kl: inertia * kl + (1 - inertia) * 20 / g, 4000)
    late = kls[2000:]
    assert 0.9 * FLOOR < sum(late) / len(late) < 1.25 * FLOOR
    assert max(gammas) <= 1


@pytest.mark.parametrize("inertia", [0.8, 0.95, 0.99])
def test_the_one_that_trains_keeps_a_slow_kl_near_the_floor(inertia):
    """It looks every ten steps only, at the mean of those."""
    control, kl, kls, gammas = RunningGamma(FLOOR, 10, torch.device("cpu")), 0.0, [], []
    for step in range(1, 8001):
        gamma = control.gamma.item()
        kl = inertia * kl + (1 - inertia) * 20 / gamma
        control.note(torch.tensor(kl))
        control.after(step)
        kls.append(kl)
        gammas.append(gamma)
    late = kls[4000:]
    assert 0.9 * FLOOR < sum(late) / len(late) < 1.25 * FLOOR
    assert min(late) > 0.5 * FLOOR and max(late) < 2 * FLOOR
    assert min(gammas) > 0 and max(gammas) <= 1


def test_is_the_true_bound_when_the_code_is_used_anyway():
    kls, gammas = run(0.2, lambda g, _: 90 - 20 * g, 100)
    assert gammas[-1] == 1 and min(kls) > FLOOR
    assert all(b >= a for a, b in pairwise(gammas))
    assert max(gammas) == 1


def test_the_steps_are_the_papers():
    assert next_gamma(0.5, FLOOR * 1.051, FLOOR) == pytest.approx(0.55)
    assert next_gamma(0.55, FLOOR * 1.049, FLOOR) == next_gamma(0.55, FLOOR, FLOOR) == 0.55
    assert next_gamma(0.55, FLOOR * 0.999, FLOOR) == pytest.approx(0.495)
    assert next_gamma(0.495, math.nan, FLOOR) == 0.495
    assert next_gamma(0.99, 1e9, FLOOR) == 1.0


@pytest.mark.parametrize(
    ("floor", "gamma", "fault"),
    [(0.0, 1.0, "floor"), (math.nan, 1.0, "floor"), (1.0, 0.0, "gamma"), (1.0, 1.1, "gamma")],
)
def test_what_is_no_floor_and_no_weight(floor, gamma, fault):
    with pytest.raises(ValueError, match=fault):
        next_gamma(gamma, 1.0, floor)
