"""Relative entropy coding: sends a sample of q(z|x) in a fixed number of bits.

Sender and receiver know the same 2^bits samples of the prior, the codebook. The sender draws an
entry i with probability proportional to w_i = q(z_i|x) / p(z_i) and sends i (minimal random
coding, Havasi et al. 2019). The entry is distributed as q(z|x) if 2^bits is well above
exp KL(q || p).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlae.errors import VlaeError
from vlae.models.base import Model, Posterior, standard_normal_log_density
from vlae.models.vlae import VLAE
from vlae.nn.flow_sampling import generate_many
from vlae.randomness import generator

CHUNK = 2048  # entries that are computed together
IMAGES = 1024  # images whose weights are computed together
SEED = 0  # of the sender's draws
KL_SAMPLES = 16
PER_COUNT = 4  # numbers of 64 bits that Philox makes of one count


def lossy_model(run: str, model: Model) -> VLAE:
    """Return the model if relative entropy coding can send its codes.

    Raises VlaeError for colour images, without a code, with an IAF posterior (whose density at a
    given z takes an inversion), and with a prior flow that scales.
    """
    if not isinstance(model, VLAE):
        raise VlaeError(f"{run} is a run on colour images; only binary images can be compressed")
    if not model.latent_dim:
        raise VlaeError(f"{run} has no latent code, which is all that --lossy sends")
    if model.posterior_flow is not None:
        raise VlaeError(f"{run} has an IAF posterior; --lossy needs a Gaussian one")
    if model.prior_flow is not None and model.prior_flow.scale:
        raise VlaeError(f"{run} has a prior flow that scales; --lossy needs one that shifts")
    return model


def prior_noise(index: np.ndarray, dim: int) -> Tensor:
    """Return the noise u ~ N(0, I) of entries `index` (n,), integers -> float32 (n, dim).

    Each entry has its own counts of the generator Philox, which a run of successive entries
    takes at once. The normal numbers are those of Box and Muller.
    """
    words = -(-dim // (2 * PER_COUNT)) * PER_COUNT  # of 64 bits; each gives two numbers
    counts = words // PER_COUNT
    parts = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    raw = np.concatenate(
        [
            np.random.Philox(key=0, counter=int(part[0]) * counts).random_raw(len(part) * words)
            for part in parts
        ]
    )
    low, high = raw & np.uint64(2**32 - 1), raw >> np.uint64(32)
    radius = np.sqrt(-2 * np.log((low + 0.5) / 2**32))
    angle = (2 * math.pi) * ((high + 0.5) / 2**32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return torch.from_numpy(pairs.reshape(len(index), -1)[:, :dim].astype(np.float32))


def codes(model: VLAE, u: Tensor) -> Tensor:
    """Return z = f(u), (n, latent_dim)."""
    return u if model.prior_flow is None else generate_many(model.prior_flow, u)


def received(model: VLAE, index: np.ndarray) -> Tensor:
    """Return the codes of entries `index` (n,), float32 (n, latent_dim)."""
    return codes(model, prior_noise(index, model.latent_dim))


def codebook(model: VLAE, bits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all entries in chunks: z (n, latent_dim) and log p(z) (n,), nats."""
    for start in range(0, 2**bits, CHUNK):
        index = np.arange(start, min(start + CHUNK, 2**bits))
        u = prior_noise(index, model.latent_dim)
        yield codes(model, u), standard_normal_log_density(u)


@dataclass(frozen=True)
class Chosen:
    """The entries of images: `index` (n,) int64, and per image the effective number of entries,
    (sum w)^2 / sum w^2, (n,)."""

    index: np.ndarray
    effective: np.ndarray


@torch.no_grad()
def choose(
    model: VLAE, posterior: Posterior, bits: int, progress: Callable[[int], object] | None = None
) -> Chosen:
    """Draw an entry for each image, in one pass over the codebook.

    progress: called with the number of entries after each chunk. The draw needs no random number
    per entry: the entry chosen so far is replaced by one of the chunk with probability
    (weight of the chunk) / (weight so far), which gives each entry its probability. Memory is
    proportional to the number of images, whatever `bits` is.
    """
    draws = _Draws(posterior)
    for number, (z, log_p) in enumerate(codebook(model, bits)):
        draws.add(number, z, log_p)
        if progress is not None:
            progress(len(z))
    effective = (2 * draws.total - draws.total_of_squares).exp()
    return Chosen(draws.index.numpy(), effective.numpy())


class _Draws:
    """The entries chosen so far, and the sums of the weights and their squares, as logarithms."""

    def __init__(self, posterior: Posterior) -> None:
        precision = torch.exp(-2 * posterior.log_std.double())
        mean, count = posterior.mean.double(), len(posterior.mean)
        self.of_squares, self.of_values = (-0.5 * precision).float(), (mean * precision).float()
        constant = -0.5 * (mean.square() * precision + math.log(2 * math.pi)).sum(1)
        self.constant = constant - posterior.log_std.double().sum(1)
        self.index = torch.zeros(count, dtype=torch.int64)
        self.total = torch.full((count,), -math.inf, dtype=torch.float64)
        self.total_of_squares = self.total.clone()

    def add(self, number: int, z: Tensor, log_p: Tensor) -> None:
        """Take chunk `number` of the codebook into account."""
        random = generator(SEED, "relative entropy coding", number)
        uniform = torch.rand((2, len(self.index)), generator=random, dtype=torch.float64)
        terms = torch.cat([z.square(), z], 1)
        for start in range(0, len(self.index), IMAGES):
            part = slice(start, start + IMAGES)
            quadratic = torch.cat([self.of_squares[part], self.of_values[part]], 1)
            log_weight = torch.addmm(-log_p, quadratic, terms.T)  # without the constant
            self._replace(number, part, log_weight, *uniform[:, part])

    def _replace(
        self, number: int, part: slice, log_weight: Tensor, whether: Tensor, which: Tensor
    ) -> None:
        """Take log_weight (images, entries) into account; whether, which: uniform (images,)."""
        largest = log_weight.amax(1, keepdim=True)
        weight = log_weight.sub_(largest).exp_()
        largest = largest[:, 0].double() + self.constant[part]
        chunk = weight.sum(1, dtype=torch.float64).log() + largest
        squares = torch.linalg.vector_norm(weight, dim=1).double().log().add(largest).mul(2)
        total = torch.logaddexp(self.total[part], chunk)
        self.total[part] = total
        self.total_of_squares[part] = torch.logaddexp(self.total_of_squares[part], squares)
        new = (whether < (chunk - total).exp()).nonzero()[:, 0]
        if not len(new):
            return
        steps = weight[new].double().cumsum(1)
        place = torch.searchsorted(steps, which[new, None] * steps[:, -1:], right=True)[:, 0]
        place = place.clamp(max=weight.shape[1] - 1)
        self.index[new + part.start] = number * CHUNK + place


@torch.no_grad()
def kl(model: VLAE, posterior: Posterior) -> np.ndarray:
    """Return KL(q(z|x) || p(z)) of each image, bits (n,), estimated with KL_SAMPLES samples."""
    total = torch.zeros(len(posterior.mean))
    for sample in range(KL_SAMPLES):
        random = generator(SEED, "KL of a lossy file", sample)
        noise = torch.randn(posterior.mean.shape, generator=random)
        z, log_q = model.sample_posterior(posterior, noise)
        total += log_q - model.log_prior(z)
    return (total / KL_SAMPLES / math.log(2)).numpy()


def pack(index: np.ndarray, bits: int) -> bytes:
    """Return indices below 2^bits as bytes, `bits` bits each, highest first, without gaps."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((index[:, None] >> places & 1).astype(np.uint8)).tobytes()


def unpack(content: bytes, count: int, bits: int) -> np.ndarray:
    """Return the `count` indices that `pack` wrote, int64 (count,)."""
    digits = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits)
    return digits.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1))
