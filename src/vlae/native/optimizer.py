"""Does the Adamax step and averages the weights in one pass over memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vlae.native.library import loaded
from vlae.native.structures import StepEntry, array_of


@torch.no_grad()
def adamax_and_average(
    optimizer: torch.optim.Optimizer, average: Sequence[Tensor], polyak: float
) -> None:
    """Do `optimizer.step()` and `average <- polyak average + (1 - polyak) weights` in one pass.

    The weights are float32 on the CPU. The optimizer's state has PyTorch's form.
    """
    (group,) = optimizer.param_groups
    entries = []
    gradients = []  # keeps the tensors alive until the call
    for weight, mean in zip(group["params"], average, strict=True):
        state = optimizer.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_inf"] = torch.zeros_like(weight)
        state["step"] += 1
        gradient = (
            torch.empty_like(weight).copy_(weight.grad)
            if (weight.grad.stride() != weight.stride())
            else weight.grad
        )
        gradients.append(gradient)
        tensors = (weight, gradient, state["exp_avg"], state["exp_inf"], mean)
        entries.append(StepEntry(*(tensor.data_ptr() for tensor in tensors), weight.numel()))
    beta1, beta2 = group["betas"]
    rate = group["lr"] / (1 - beta1 ** state["step"].item())
    loaded().vlae_adamax(
        len(entries), array_of(entries),
        rate, beta1, beta2, group["eps"], polyak, torch.get_num_threads(),
    )  # fmt: skip
