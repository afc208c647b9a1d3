"""Training steps: ours, the baseline, and the processor's limit."""

from dataclasses import replace

import torch
from torch import nn

from benchmarks.baseline import baseline_of, baseline_operations
from vlae.config.schema import Run
from vlae.hardware import choose_precision
from vlae.images import FIXED
from vlae.models.base import latent_noise
from vlae.models.initialise import new_model
from vlae.models.vlae import SIDE, VLAE
from vlae.native.library import backend
from vlae.nn.weightnorm import WeightNorm
from vlae.training.optimizer import new_optimizer
from vlae.training.step import training_step
from vlae.training.train_state import new_train_state

CPU = torch.device("cpu")


def made_up_images(count: int) -> torch.Tensor:
    """Return random bits, uint8 (count, 28, 28); the time does not depend on the pixels."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (count, SIDE, SIDE), generator=random, dtype=torch.uint8)


class Step:
    """A repeatable training step of `run` on synthetic images."""

    def __init__(self, run: Run, model: VLAE, precision: str, batch: int):
        self.precision = precision
        self.state = new_train_state(run, made_up_images(64), FIXED, CPU)
        self.state = replace(
            self.state,
            model=model,
            optimizer=new_optimizer(list(model.parameters()), run.training),
            average={name: w.detach().clone() for name, w in model.named_parameters()},
        )
        self.x = made_up_images(batch).unsqueeze(1).float()
        self.noise = latent_noise(run.model.latent_dim, self.x, torch.Generator().manual_seed(0))

    def __call__(self) -> None:
        training_step(self.state, self.x, self.noise, self.precision)


def ours_and_baseline(run: Run, batch: int) -> tuple[Step, Step, str]:
    """Return our step, the baseline's step, and the precision and backend of ours."""
    model = new_model(run, made_up_images(64), FIXED, CPU)
    precision = choose_precision("auto", CPU)
    baseline = Step(run, baseline_of(model), "float32", batch)

    class Baseline(Step):
        def __call__(self) -> None:
            with baseline_operations():
                super().__call__()

    baseline.__class__ = Baseline
    return (
        Step(run, model, precision, batch),
        baseline,
        f"{precision}, {backend('cpu', precision)}",
    )


def multiply_adds(model: VLAE) -> float:
    """Return one image's useful multiply-adds in a forward pass, without masked inputs."""
    total = 0.0

    def count(layer: WeightNorm, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        direction = layer.direction if len(inputs) == 1 else inputs[1]
        weights = direction.numel()
        if layer.mask is not None:
            weights = int((layer.mask != 0).expand(direction.shape).sum())
        if direction.dim() == 2:
            places = 1
        elif isinstance(layer, nn.Module) and layer.unit_dim == 1:  # transposed: input pixels
            places = inputs[0].shape[2] * inputs[0].shape[3]
        else:
            places = output.shape[2] * output.shape[3]
        total += weights * places

    layers = [m for m in model.modules() if isinstance(m, WeightNorm)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    dtype = next(model.parameters()).dtype
    x = torch.zeros((1, 1, SIDE, SIDE), dtype=dtype)
    with torch.no_grad(), baseline_operations():
        noise = torch.zeros((1, model.latent_dim), dtype=dtype) if model.latent_dim else None
        if noise is None:
            model.log_likelihood(x, None)
        else:
            model.bound_terms(x, noise)
    for hook in hooks:
        hook.remove()
    return total


def matmul_rate() -> float:
    """Return the multiply-adds per second of a large bfloat16 matrix product, best of ten."""
    from benchmarks.measure import once

    a, b = (torch.randn(1024, 1024).bfloat16() for _ in range(2))
    return 1024**3 / min(once(lambda: a @ b) for _ in range(10))
