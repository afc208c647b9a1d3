"""The number of a training's steps, and the learning rate of each.

The rate is constant and then, over the last `decay_epochs` epochs, falls to zero. The paper says
nothing of a schedule (docs/readings.md). To add a form of decay: an entry in DECAYS, its name
among the choices in vlae.config.schema.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vlae.config.schema import TrainingConfig

# What multiplies the learning rate when a share of the decay, from 1 down to 0, is left.
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """Steps are counted from 0, over all epochs of the run."""

    steps_per_epoch: int
    epochs: int
    decay_epochs: int
    decay: str = "linear"

    @property
    def last_step(self) -> int:
        """The number of steps in all."""
        return self.epochs * self.steps_per_epoch

    @property
    def decay_from(self) -> int:
        """The step at which the decay begins; `last_step` where there is none. Up to there the
        weights depend on `steps_per_epoch` only."""
        return (self.epochs - self.decay_epochs) * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at this step: 1, in the decay from 1 towards
        0."""
        if step < self.decay_from:
            return 1.0
        left = (self.last_step - step) / (self.last_step - self.decay_from)
        return DECAYS[self.decay](left)

    @property
    def end(self) -> dict:
        """The end that a state was trained towards, as it is saved."""
        end = {"epochs": self.epochs, "decay_epochs": self.decay_epochs}
        return end if self.decay == "linear" else end | {"decay": self.decay}


def schedule_of(training: TrainingConfig, images: int) -> Schedule:
    """The schedule of a training with so many images; an incomplete last batch is left out."""
    return Schedule(
        images // training.batch_size, training.epochs, training.decay_epochs, training.decay
    )
