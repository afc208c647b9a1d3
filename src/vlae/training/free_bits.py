"""Soft free bits: how much the KL counts, as a controlled weight (appendix C).

    E_q[log p(x|z)] - gamma KL(q(z|x) || p(z)),      0 < gamma <= 1

gamma is lowered while the KL is below the floor and raised while it is clearly above, so that
the code is used from the beginning, and the objective turns smoothly into the true bound.
"""

import torch
from torch import Tensor

STEP = 0.10  # by which gamma goes up or down
TOLERANCE = 0.05  # by which the KL may exceed the floor


def next_gamma(
    gamma: float, kl: float, floor: float, tolerance: float = TOLERANCE, step: float = STEP
) -> float:
    """gamma for the next minibatches, from the KL of the last ones, nats an image.

    floor: the KL to be kept, nats an image (the paper's lambda). A KL that is no number leaves
    gamma as it is. Raises ValueError for a floor or a gamma out of range.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be above 0 and at most 1, not {gamma!r}")
    if not floor > 0:
        raise ValueError(f"the floor must be above 0 nats, not {floor!r}")
    if kl > floor * (1 + tolerance):
        return min(1.0, gamma * (1 + step))
    if kl < floor:
        # Not divided by 1.1, as going up is: steps that undo each other could leap back and
        # forth over the tolerance for ever.
        return gamma * (1 - step)
    return gamma


class RunningGamma:
    """gamma during a training, on the device where the steps are computed.

    `values`, float64 (2,): gamma, and the sum of the KLs (nats an image) of the steps since its
    last update. They are all of its state, changed in place.
    """

    def __init__(self, floor: float, steps: int, device: torch.device) -> None:
        self.floor, self.steps = floor, steps
        self.values = torch.tensor([1.0, 0.0], dtype=torch.float64, device=device)

    @property
    def gamma(self) -> Tensor:
        """The weight of the KL, ()."""
        return self.values[0]

    def note(self, kl: Tensor) -> None:
        """Take the KL of a step's minibatch."""
        self.values[1] += kl

    def after(self, step: int) -> None:
        """After every `steps` steps, update gamma by the mean KL of those."""
        if step % self.steps == 0:
            gamma, total = self.values.tolist()
            after = [next_gamma(gamma, total / self.steps, self.floor), 0.0]
            self.values.copy_(torch.tensor(after, dtype=torch.float64))
