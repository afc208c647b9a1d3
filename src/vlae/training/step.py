"""One training step: a batch, its loss and gradient, and the update of the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlae.config.schema import Run, TrainingConfig
from vlae.data.batches import as_input, mirrored
from vlae.hardware import autocast
from vlae.images import ImageKind
from vlae.models.base import latent_noise
from vlae.models.build import backend_name
from vlae.models.objective import loss, negative_bound
from vlae.training.cuda_graph import CapturedStep, StaticInputs, captured
from vlae.training.distributed import SINGLE, ProcessGroup
from vlae.training.optimizer import step_and_average
from vlae.training.train_state import TrainState

Step = Callable[[Tensor, torch.Generator], None]


@dataclass(frozen=True)
class Arithmetic:
    """How steps are computed.

    graph: launch each step as one CUDA graph. compiled: fuse the operations between convolutions
    with PyTorch's compiler, where it is available; needs `graph`.
    """

    precision: str
    graph: bool = False
    compiled: bool = False


def training_step(
    state: TrainState,
    x: Tensor,
    noise: Tensor | None,
    precision: str,
    group: ProcessGroup = SINGLE,
    bound: Callable = negative_bound,
    uniform: Tensor | None = None,
) -> Tensor:
    """Update the state once; return (loss, reconstruction, KL), nats per image, float64 (3,).

    x: network input (B, C, H, W). noise: standard normal (B * K, latent_dim) for a bound with K
    samples, or None. uniform: (B,), to take the gradient of one of them. The loss,
    ELBO and KL are those of vlae.models.objective. With several processes x, noise and uniform are
    this process's shard; the update and the returned values are for the whole batch. `bound` is
    negative_bound, or its compiled form.
    """
    training, soft = state.training, state.free_bits
    free_bits = training.free_bits if state.model.latent_dim else 0.0
    with autocast(x.device, precision):
        terms = group.mean_with_gradient(bound(state.model, x, noise, uniform))
        total = loss(terms, free_bits, None if soft is None else soft.gamma)
    total.backward()
    group.average_gradients(list(state.model.parameters()))
    step_and_average(state.optimizer, list(state.average.values()), training, precision)
    state.optimizer.zero_grad(set_to_none=True)
    reconstruction, kl = terms[:2].detach().double()
    if soft is not None:
        soft.note(kl)
    return torch.stack([total.detach().double(), reconstruction, kl])


def draw(
    images: Tensor,
    kind: ImageKind,
    training: TrainingConfig,
    latent_dim: int,
    random: torch.Generator,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Draw what a step on stored images (B, …) needs: x, noise and uniform of `training_step`."""
    x = as_input(images, kind, random)
    noise = latent_noise(latent_dim, x, random, training.bound_samples)
    uniform = mirroring = None
    if training.bound_gradient == "drawn":
        uniform = torch.rand(len(x), generator=random, device=x.device)
    if training.augment == "flip":
        mirroring = torch.rand(len(x), generator=random, device=x.device)
    return mirrored(x, mirroring), noise, uniform


def new_step(
    state: TrainState,
    images: Tensor,
    kind: ImageKind,
    run: Run,
    arithmetic: Arithmetic,
    group: ProcessGroup = SINGLE,
) -> tuple[Step, str]:
    """Return the function step(indices, random) and the name of its backend, for the record.

    step updates the state with the images of these indices (B,) and adds its losses to
    `state.sums`. A CUDA graph or compiler that is requested but not available is not used.
    """
    precision, latent_dim = arithmetic.precision, run.model.latent_dim
    training = run.training

    def update(
        x: Tensor,
        noise: Tensor | None,
        uniform: Tensor | None,
        bound: Callable = negative_bound,
    ) -> None:
        state.sums.add_(training_step(state, x, noise, precision, group, bound, uniform))

    def step(indices: Tensor, random: torch.Generator) -> None:
        x, noise, uniform = draw(images[indices], kind, training, latent_dim, random)
        update(
            group.local_shard(x),
            None if noise is None else group.local_shard(noise),
            None if uniform is None else group.local_shard(uniform),
        )

    name = backend_name(run.model, images.device.type, precision)
    if arithmetic.graph:
        inputs = StaticInputs(images, kind, training, latent_dim)
        changed = state.changed()
        if arithmetic.compiled:
            fused = compiled_bound()
            as_graph = captured(
                CapturedStep(
                    lambda x, noise, uniform: update(x, noise, uniform, fused), inputs, changed
                )
            )
            if as_graph:
                return as_graph, f"{name}, compiled, CUDA graph"
        if as_graph := captured(CapturedStep(update, inputs, changed)):
            return as_graph, f"{name}, CUDA graph"
    return step, name


def compiled_bound() -> Callable:
    """Return negative_bound with the operations between its convolutions fused into few kernels.

    The compiler chooses kernels without timing them, so that a resumed training uses the same.
    """
    return torch.compile(negative_bound, dynamic=False, options={"deterministic": True})
