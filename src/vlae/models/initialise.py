"""Initialises a run's model: random weights, then data-dependent gains and biases."""

import torch
from torch import Tensor

from vlae.config.schema import Run
from vlae.data.batches import as_input, permutation
from vlae.images import ImageKind
from vlae.models.base import Model, latent_noise
from vlae.models.build import build_model
from vlae.models.objective import objective
from vlae.nn.weightnorm import data_dependent_initialisation
from vlae.randomness import generator


def new_model(
    run: Run,
    images: Tensor,
    kind: ImageKind,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Return the run's model, initialised from its seed and one batch of `images`.

    images: uint8 (N, *kind.shape), from vlae.data.batches.training_images. Colour images may be
    smaller than 32x32; the model then has their size.
    """
    seed = run.training.seed
    other_side = images.shape[-1] if images.shape[-1] != kind.shape[-1] else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        model = build_model(run.model, other_side)
    model.to(device=device, dtype=dtype)
    first = permutation(seed, -1, len(images))[: run.training.init_images]
    random = generator(seed, "initialisation", 0, device.type)
    x = as_input(images[first.to(images.device)].to(device), kind, random).to(dtype)
    with data_dependent_initialisation(model):
        objective(model, x, latent_noise(model.latent_dim, x, random), run.training.free_bits)
    return model
