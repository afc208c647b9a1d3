"""Soft free bits: how much the KL counts, as a controlled weight (appendix C).

    E_q[log p(x|z)] - gamma KL(q(z|x) || p(z)),      0 < gamma <= 1

gamma is lowered while the KL is below the floor and raised while it is clearly above, so that
the code is used from the beginning, and the objective turns smoothly into the true bound.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 0.10  # by which gamma goes up or down
TOLERANCE = 0.05  # by which the KL may exceed the floor


@dataclass
class SoftFreeBits:
    """The controller; `gamma` is all of its state, to be saved and put back as it is.

    floor: the KL to be kept, nats an image (the paper's lambda), above 0. Raises ValueError
    for a floor or a gamma that is none.
    """

    floor: float
    gamma: float = 1.0
    tolerance: float = TOLERANCE
    step: float = STEP

    def __post_init__(self):
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1, not {self.gamma!r}")
        if not self.floor > 0:
            raise ValueError(f"the floor must be above 0 nats, not {self.floor!r}")

    def update(self, kl: float) -> float:
        """Take the KL of a minibatch, nats an image, and return gamma for the next one.

        A KL that is no number leaves gamma as it is.
        """
        if kl > self.floor * (1 + self.tolerance):
            self.gamma = min(1.0, self.gamma * (1 + self.step))
        elif kl < self.floor:
            # Not divided by 1.1, as going up is: steps that undo each other could leap back and
            # forth over the tolerance for ever.
            self.gamma *= 1 - self.step
        return self.gamma


class RunningGamma:
    """The controller in a training: gamma where the steps are computed, updated every so often.

    `values`, float64 (2,) on the device: gamma, and the sum of the KLs (nats an image) of the
    steps since its last update. They are all of its state, changed in place.
    """

    def __init__(self, floor: float, steps: int, device: torch.device):
        self.floor, self.steps = floor, steps
        self.values = torch.tensor([1.0, 0.0], dtype=torch.float64, device=device)

    @property
    def gamma(self) -> Tensor:
        return self.values[0]

    def note(self, kl: Tensor) -> None:
        """Take the KL of a step's minibatch."""
        self.values[1] += kl

    def after(self, step: int) -> None:
        """After every `steps` steps, update gamma by the mean KL of those."""
        if step % self.steps == 0:
            gamma, total = self.values.tolist()
            controller = SoftFreeBits(self.floor, gamma)
            after = [controller.update(total / self.steps), 0.0]
            self.values.copy_(torch.tensor(after, dtype=torch.float64))
