"""Evaluates the bound on validation images."""

import torch
from torch import Tensor

from vlae.config.schema import Run
from vlae.data.batches import as_input
from vlae.hardware import autocast
from vlae.images import ImageKind
from vlae.models.base import Model, latent_noise
from vlae.models.objective import negative_bound
from vlae.randomness import generator

BATCH = {"binary": 500, "colour": 50}  # images per batch, by kind, so that they fit into memory


@torch.no_grad()
def validation_bound(
    model: Model, images: Tensor, kind: ImageKind, run: Run, precision: str
) -> tuple[float, float]:
    """Return (ELBO, KL), nats per image, of uint8 images (N, *kind.shape).

    Each image gets one latent sample and one fixed draw of its bits.
    """
    total = torch.zeros(2, dtype=torch.float64)
    size = BATCH[kind.name]
    for i in range(0, len(images), size):
        random = generator(run.training.seed, "validation", i, images.device.type)
        x = as_input(images[i : i + size], kind, random)
        noise = latent_noise(run.model.latent_dim, x, random)
        with autocast(x.device, precision):
            reconstruction, kl = negative_bound(model, x, noise)
        total += len(x) * torch.stack([-reconstruction - kl, kl]).double().cpu()
    elbo, kl = (total / len(images)).tolist()
    return elbo, kl
