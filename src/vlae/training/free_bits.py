"""Soft free bits: a controller of the KL's weight gamma (appendix C).

    E_q[log p(x|z)] - gamma KL(q(z|x) || p(z)),      0 < gamma <= 1

gamma is lowered while the KL is below the floor and raised while it is clearly above. The code is
thus used from the beginning, and the objective turns smoothly into the true bound.
"""

import torch
from torch import Tensor

STEP = 0.10  # relative change of gamma
TOLERANCE = 0.05  # relative excess of the KL over the floor up to which gamma stays


def next_gamma(
    gamma: float, kl: float, floor: float, tolerance: float = TOLERANCE, step: float = STEP
) -> float:
    """Return gamma for the next minibatches, given the KL of the last ones, nats per image.

    floor: the target KL, nats per image (the paper's lambda). A KL of NaN leaves gamma unchanged.
    Raises ValueError for a floor or a gamma out of range.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be above 0 and at most 1, not {gamma!r}")
    if not floor > 0:
        raise ValueError(f"the floor must be above 0 nats, not {floor!r}")
    if kl > floor * (1 + tolerance):
        return min(1.0, gamma * (1 + step))
    if kl < floor:
        # Not division by 1.1: a step down that undoes a step up could oscillate across the
        # tolerance for ever.
        return gamma * (1 - step)
    return gamma


class RunningGamma:
    """gamma during training, on the device that computes the steps.

    `values`, float64 (2,), is its complete state and is changed in place: gamma, and the sum of
    the KLs (nats per image) of the steps since the last update.
    """

    def __init__(self, floor: float, steps: int, device: torch.device) -> None:
        self.floor, self.steps = floor, steps
        self.values = torch.tensor([1.0, 0.0], dtype=torch.float64, device=device)

    @property
    def gamma(self) -> Tensor:
        """The weight of the KL, ()."""
        return self.values[0]

    def note(self, kl: Tensor) -> None:
        """Add the KL of a step's minibatch, nats per image."""
        self.values[1] += kl

    def after(self, step: int) -> None:
        """Update gamma from the mean KL, if `step` is a multiple of `steps`."""
        if step % self.steps == 0:
            gamma, total = self.values.tolist()
            after = [next_gamma(gamma, total / self.steps, self.floor), 0.0]
            self.values.copy_(torch.tensor(after, dtype=torch.float64))
