"""Optimizers, by the name used for `training.optimizer` in params.yaml.

To add one, add an entry here and its name to the choices in vlae.config.schema.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vlae.config.schema import TrainingConfig
from vlae.native.library import backend
from vlae.native.optimizer import adamax_and_average

Step = Callable[[torch.optim.Optimizer, Sequence[Tensor], float], None]


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer that a run can name.

    build: the PyTorch class. moments: the state tensors with a weight's shape, which PyTorch keeps
    beside the step count. fused: a function of the C++ core that does the step and averages the
    weights in one pass, where the core computes; None if the core has no such function.
    """

    build: Callable[..., torch.optim.Optimizer]
    moments: tuple[str, ...]
    fused: Step | None = None


OPTIMIZERS = {
    "adamax": OptimizerKind(torch.optim.Adamax, ("exp_avg", "exp_inf"), adamax_and_average),
    "adam": OptimizerKind(torch.optim.Adam, ("exp_avg", "exp_avg_sq")),
}


def new_optimizer(weights: Sequence[Tensor], training: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimizer that a run's settings name, before its first step."""
    on_gpu = weights[0].is_cuda
    optimizer = OPTIMIZERS[training.optimizer].build(
        weights, training.learning_rate, training.betas, foreach=True, capturable=on_gpu
    )
    if on_gpu:  # rate and step count live on the GPU: a CUDA graph reads them at each replay
        rate = torch.tensor(training.learning_rate, device=weights[0].device)
        optimizer.param_groups[0]["lr"] = rate
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all further steps, including those of a captured CUDA graph."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> list[Tensor]:
    """Return all tensors of the optimizer's state, creating them before the first step.

    If a CUDA graph created them, it would create them again at every replay.
    """
    for weight in optimizer.param_groups[0]["params"]:
        if not optimizer.state[weight]:
            moments = OPTIMIZERS[training.optimizer].moments
            counter = torch.zeros((), device=weight.device)
            zeros = {name: torch.zeros_like(weight) for name in moments}
            optimizer.state[weight] = {"step": counter, **zeros}
    return [tensor for state in optimizer.state.values() for tensor in state.values()]


def step_and_average(
    optimizer: torch.optim.Optimizer,
    average: Sequence[Tensor],
    training: TrainingConfig,
    precision: str,
) -> None:
    """Do one optimizer step, then average <- polyak average + (1 - polyak) weights.

    The average is the final model.
    """
    fused = OPTIMIZERS[training.optimizer].fused
    name = backend(average[0].device.type, precision)
    if fused is not None and name != "PyTorch" and average[0].dtype == torch.float32:
        fused(optimizer, average, training.polyak)
        return
    optimizer.step()
    with torch.no_grad():
        update = get_ema_multi_avg_fn(training.polyak)
        update(average, optimizer.param_groups[0]["params"], None)
