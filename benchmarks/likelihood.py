"""Importance sampling and sampling: ours against the usual way."""

import resource

import torch

from benchmarks.baseline import baseline_operations
from vlae.evaluation.likelihood import estimates
from vlae.models.vlae import VLAE


@torch.no_grad()
def one_image_at_a_time(model: VLAE, x: torch.Tensor, samples: int, batch: int = 128) -> None:
    """The usual estimate: each image copied `samples` times, and the whole model, encoder
    included, run on the copies in batches. `model`: the usual form of it."""
    with baseline_operations():
        for image in x:
            log_w = []
            for start in range(0, samples, batch):
                copies = image.expand(min(batch, samples - start), -1, -1, -1)
                noise = torch.randn(len(copies), model.latent_dim)
                log_likelihood, kl = model.bound_terms(copies, noise)
                log_w.append(log_likelihood - kl)
            torch.logsumexp(torch.cat(log_w), 0)


def streamed(model: VLAE, x: torch.Tensor, samples: int, precision: str) -> None:
    """Ours: the encoder once an image, images x samples decoded together."""
    estimates(model, x, range(len(x)), samples, 0, precision)


@torch.no_grad()
def raster(model: VLAE, maps: torch.Tensor, uniform: torch.Tensor, rows: int) -> None:
    """The usual way to draw pixels, the first `rows` rows of them: the whole network for each."""
    with baseline_operations():
        x = torch.zeros_like(uniform)
        for row in range(rows):
            for column in range(x.shape[3]):
                p = torch.sigmoid(model.logits(x, maps)[:, 0, row, column])
                x[:, 0, row, column] = (uniform[:, 0, row, column] < p).to(x.dtype)


@torch.no_grad()
def full_passes(model: VLAE, noise: torch.Tensor, variables: int) -> None:
    """The usual way to invert an autoregressive flow, its last step's first `variables` only:
    a full pass of the network for each variable."""
    with baseline_operations():
        made = model.prior_flow.steps[-1]
        z = torch.zeros_like(noise)
        for i in range(variables):
            (shift,) = made(z)
            z[:, i] = noise[:, i] + 0.1 * shift[:, i]


def peak_mib() -> float:
    """Most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
