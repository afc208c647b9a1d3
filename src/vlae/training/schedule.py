"""The number of a training's steps and the learning rate of each step.

The rate is constant, then falls to zero over the last `decay_epochs` epochs. The paper does not
report a schedule (docs/readings.md). To add a form of decay, add an entry to DECAYS and its name
to the choices in vlae.config.schema.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vlae.config.schema import TrainingConfig

# Factor of the learning rate, given the fraction of the decay that is left (from 1 to 0).
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """Length and learning-rate decay of a training; steps count from 0 over all epochs."""

    steps_per_epoch: int
    epochs: int
    decay_epochs: int
    decay: str = "linear"

    @property
    def last_step(self) -> int:
        """The total number of steps."""
        return self.epochs * self.steps_per_epoch

    @property
    def decay_from(self) -> int:
        """The step at which the decay begins, `last_step` if there is no decay.

        Up to this step, of all these settings only `steps_per_epoch` affects the weights.
        """
        return (self.epochs - self.decay_epochs) * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at this step: 1, then falling towards 0."""
        if step < self.decay_from:
            return 1.0
        left = (self.last_step - step) / (self.last_step - self.decay_from)
        return DECAYS[self.decay](left)

    @property
    def end(self) -> dict:
        """The end of the schedule, as a training state records it."""
        end = {"epochs": self.epochs, "decay_epochs": self.decay_epochs}
        return end if self.decay == "linear" else end | {"decay": self.decay}


def schedule_of(training: TrainingConfig, images: int) -> Schedule:
    """Return the schedule for this number of images; an incomplete last batch is dropped."""
    return Schedule(
        images // training.batch_size, training.epochs, training.decay_epochs, training.decay
    )
