"""How many steps a training has, and the learning rate of each.

The rate is constant and then, over the last `decay_epochs` epochs, falls linearly to zero. The
paper says nothing of a schedule (docs/readings.md).
"""

from dataclasses import dataclass

from vlae.config.params import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """Steps are counted from 0, over all epochs of the run."""

    steps_per_epoch: int
    epochs: int
    decay_epochs: int

    @property
    def last_step(self) -> int:
        """The number of steps in all."""
        return self.epochs * self.steps_per_epoch

    @property
    def decay_from(self) -> int:
        """The step at which the decay begins; `last_step` where there is none. Up to there the
        weights do not depend on `epochs` and `decay_epochs`."""
        return (self.epochs - self.decay_epochs) * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """What multiplies the learning rate at this step: 1, in the decay from 1 towards 0."""
        if step < self.decay_from:
            return 1.0
        return (self.last_step - step) / (self.last_step - self.decay_from)


def schedule_of(training: TrainingConfig, images: int) -> Schedule:
    """The schedule of a training with so many images; an incomplete last batch is left out."""
    return Schedule(images // training.batch_size, training.epochs, training.decay_epochs)
