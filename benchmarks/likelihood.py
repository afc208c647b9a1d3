"""Importance sampling and sampling: ours and the baseline."""

import resource

import torch

from benchmarks.baseline import baseline_operations
from vlae.evaluation.likelihood import estimates
from vlae.models.vlae import VLAE


@torch.no_grad()
def one_image_at_a_time(model: VLAE, x: torch.Tensor, samples: int, batch: int = 128) -> None:
    """The baseline's estimate: run the complete model, encoder included, on copies of each image.

    There are `samples` copies, processed in batches. `model` has the baseline's form.
    """
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
    """Our estimate: run the encoder once per image, and decode images x samples together."""
    estimates(model, x, range(len(x)), samples, 0, precision)


@torch.no_grad()
def raster(model: VLAE, maps: torch.Tensor, uniform: torch.Tensor, rows: int) -> None:
    """The baseline's way to draw pixels: the complete network for each; only the first `rows`."""
    with baseline_operations():
        x = torch.zeros_like(uniform)
        for row in range(rows):
            for column in range(x.shape[3]):
                p = torch.sigmoid(model.logits(x, maps)[:, 0, row, column])
                x[:, 0, row, column] = (uniform[:, 0, row, column] < p).to(x.dtype)


@torch.no_grad()
def full_passes(model: VLAE, noise: torch.Tensor, variables: int) -> None:
    """The baseline's way to invert an autoregressive flow: a full pass for each variable.

    Only the first `variables` of the last step are inverted.
    """
    with baseline_operations():
        made = model.prior_flow.steps[-1]
        z = torch.zeros_like(noise)
        for i in range(variables):
            (shift,) = made(z)
            z[:, i] = noise[:, i] + 0.1 * shift[:, i]


def peak_mib() -> float:
    """Return the peak memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
