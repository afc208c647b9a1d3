"""Everything that a training step changes, as one object that can be saved and restored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vlae.config.schema import ColourTrainingConfig, Run, TrainingConfig
from vlae.images import ImageKind
from vlae.models.base import Model
from vlae.models.initialise import new_model
from vlae.models.weights import read_model, unpacked
from vlae.models.widen import widened
from vlae.storage import paths
from vlae.storage.tensors import copy_into, with_prefix, without_prefix
from vlae.training.free_bits import RunningGamma
from vlae.training.optimizer import OPTIMIZERS, new_optimizer, optimizer_tensors


@dataclass
class TrainState:
    """Model, optimizer, average and running sums of a training.

    average: exponential moving average of the weights, by name. free_bits: controller of the KL's
    weight, only with soft free bits above 0. sums: (loss, reconstruction, KL), nats per image,
    summed over the steps of the current epoch, float64 (3,).
    """

    training: TrainingConfig
    model: Model
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    sums: Tensor
    free_bits: RunningGamma | None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The model's parameters by name, which the optimizer updates."""
        return dict(self.model.named_parameters())

    def changed(self) -> list[Tensor]:
        """Return all tensors that a step changes, each in place."""
        gamma = [] if self.free_bits is None else [self.free_bits.values]
        state = optimizer_tensors(self.optimizer, self.training)
        return [*self.weights.values(), *self.average.values(), self.sums, *state, *gamma]

    def after_step(self, step: int) -> None:
        """Finish a step; `step` is the number of steps done in total."""
        if self.free_bits is not None:
            self.free_bits.after(step)

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors by name: weights/…, average/…, the optimizer's moments, epoch/sums."""
        weights = self.weights
        tensors = with_prefix("weights", weights) | with_prefix("average", self.average)
        for kind in OPTIMIZERS[self.training.optimizer].moments:  # none before the first step
            moments = {
                name: self.optimizer.state[weight].get(kind, torch.zeros_like(weight))
                for name, weight in weights.items()
            }
            tensors |= with_prefix(kind, moments)
        if self.free_bits is not None:
            tensors["soft_free_bits/values"] = self.free_bits.values.clone()
        return tensors | {"epoch/sums": self.sums.clone()}

    def load_state_dict(self, tensors: dict[str, Tensor], steps: int, source: str) -> None:
        """Restore the tensors of `state_dict`; `steps` is the optimizer's step count.

        Raises VlaeError, naming `source`, for tensors that do not fit this model.
        """
        weights = self.weights
        copy_into(self.average, without_prefix("average", tensors), source)
        copy_into(weights, without_prefix("weights", tensors), source)
        optimizer_tensors(self.optimizer, self.training)
        capturable = self.optimizer.defaults["capturable"]
        for weight in weights.values():
            counter_on = weight.device if capturable else "cpu"
            self.optimizer.state[weight]["step"] = torch.tensor(float(steps), device=counter_on)
        for kind in OPTIMIZERS[self.training.optimizer].moments:
            moments = {name: self.optimizer.state[w][kind] for name, w in weights.items()}
            copy_into(moments, without_prefix(kind, tensors), source)
        copy_into({"sums": self.sums}, without_prefix("epoch", tensors), source)
        if self.free_bits is not None:
            values = without_prefix("soft_free_bits", tensors)
            copy_into({"values": self.free_bits.values}, values, source)

    def start_from_average(self, tensors: dict[str, Tensor], gamma: float, source: str) -> None:
        """Start from the averaged weights of a published checkpoint, average/…, and this gamma.

        The moments are zero, because a checkpoint does not contain them. Raises VlaeError, naming
        `source`, for tensors that do not fit this model.
        """
        average = unpacked(self.model, without_prefix("average", tensors))
        copy_into(self.average, average, source)
        copy_into(self.weights, self.average, source)
        if self.free_bits is not None:
            self.free_bits.values[0] = gamma

    def start_from_run(self, base: Run) -> None:
        """Start from the averaged weights of another run, whose decoder may have fewer filters.

        The moments are zero. Raises VlaeError for a checkpoint that is missing, cannot be read, or
        does not belong to that run, and for weights that are not finite.
        """
        path = paths.model(base.name)
        model = read_model(base.name, base.model, path)
        weights: dict[str, Tensor] = dict(model.named_parameters())
        average = with_prefix("average", widened(weights, self.model))
        self.start_from_average(average, 1.0, str(path))


def new_train_state(
    run: Run,
    images: Tensor,
    kind: ImageKind,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> TrainState:
    """Return the state before the first step; for the arguments see initialise.new_model."""
    training = run.training
    model = new_model(run, images, kind, device, dtype)
    free_bits = None
    if isinstance(training, ColourTrainingConfig) and training.free_bits:
        free_bits = RunningGamma(training.free_bits, training.gamma_steps, device)
    return TrainState(
        training=training,
        model=model,
        optimizer=new_optimizer(list(model.parameters()), training),
        average={name: w.detach().clone() for name, w in model.named_parameters()},
        sums=torch.zeros(3, dtype=torch.float64, device=device),
        free_bits=free_bits,
    )
