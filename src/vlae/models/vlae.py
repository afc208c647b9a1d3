"""The models of section 4.1: one class, its parts chosen by the configuration.

    log p(x) >= E_q(z|x) [ log p(x|z) + log p(z) - log q(z|x) ]        (nats)

Without a latent variable (latent_dim 0) the decoder alone is the model, and its
likelihood is exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.config.params import FlowConfig, ModelConfig
from vlae.native.network import core_of
from vlae.nn.flow import AutoregressiveFlow
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.resnet import Decoder, Encoder
from vlae.nn.weightnorm import Linear

LOG_2PI = math.log(2 * math.pi)
SIDE = 28  # pixels of an image's side


@dataclass(frozen=True)
class Posterior:
    """What the encoder says of each image: mean and log standard deviation (B, latent_dim)
    of the Gaussian, and the context (B, hidden) of an IAF, if there is one."""

    mean: Tensor
    log_std: Tensor
    context: Tensor | None


def standard_normal_log_density(x: Tensor) -> Tensor:
    """log N(x; 0, I) in nats, summed over the last dimension."""
    return -0.5 * (x.square().sum(-1) + x.shape[-1] * LOG_2PI)


def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """sum_i log p(x_i), nats, in single precision or better: (B, 1, H, W) twice -> (B,)."""
    logits = logits.float() if logits.dtype != torch.float64 else logits
    x = x.to(logits.dtype)
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))


class VLAE(nn.Module):
    """Encoder q(z|x), prior p(z), decoder p(x|z)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.latent_dim = config.latent_dim
        decoder = config.decoder
        autoregressive = decoder.kind == "pixelcnn"
        self.encoder = self.posterior_flow = self.prior_flow = self.trunk = self.pixelcnn = None
        if self.latent_dim:
            hidden = config.trunk_hidden
            self.encoder = Encoder(config.trunk_maps, hidden)
            self.mean = Linear(hidden, self.latent_dim)
            self.log_std = Linear(hidden, self.latent_dim)
            maps = decoder.maps if autoregressive else 1
            self.trunk = Decoder(self.latent_dim, config.trunk_maps, hidden, maps)
            if config.prior.flow == "af":
                self.prior_flow = new_flow(config.prior, self.latent_dim)
            if config.posterior.flow == "iaf":
                self.posterior_flow = new_flow(config.posterior, self.latent_dim, hidden)
        if autoregressive:
            self.pixelcnn = PixelCNN(
                decoder.maps if self.latent_dim else 0,
                decoder.filters,
                decoder.first_kernel,
                decoder.masked_blocks,
                decoder.pointwise_blocks,
                decoder.tied,
            )
        self.to(memory_format=torch.channels_last)  # about twice as fast on a CPU

    def encode(self, x: Tensor) -> Posterior:
        """Images (B, 1, 28, 28) of 0/1 -> q(z|x)."""
        h = self.encoder(x)
        context = h if self.posterior_flow is not None else None
        full = torch.promote_types(h.dtype, torch.float32)
        return Posterior(self.mean(h).to(full), 0.5 * self.log_std(h).to(full), context)

    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised z ~ q(z|x) from standard normal noise (B, latent_dim), and log q(z|x)."""
        z = posterior.mean + posterior.log_std.exp() * noise
        log_q = standard_normal_log_density(noise) - posterior.log_std.sum(-1)
        if self.posterior_flow is not None:
            z, log_det = self.posterior_flow.normalise(z, posterior.context)
            log_q = log_q - log_det
        return z, log_q

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (B, latent_dim) -> (B,)."""
        if self.prior_flow is None:
            return standard_normal_log_density(z)
        noise, log_det = self.prior_flow.normalise(z)
        return standard_normal_log_density(noise) + log_det

    def sample_prior(self, noise: Tensor) -> Tensor:
        """z = f(noise) ~ p(z) for standard normal noise (B, latent_dim)."""
        return noise if self.prior_flow is None else self.prior_flow.generate(noise)

    def logits(self, x: Tensor, maps: Tensor | None) -> Tensor:
        """Bernoulli logits (B, 1, 28, 28) of each pixel, given the trunk's maps and, with a
        PixelCNN, the pixels of x before it."""
        return maps if self.pixelcnn is None else self.pixelcnn(x, maps)

    def log_likelihood(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z), or log p(x) without a latent, nats: (B, 1, 28, 28), (B, D) -> (B,)."""
        maps = None if z is None else self.trunk(z)
        core = None if self.pixelcnn is None else core_of(self.pixelcnn, x)
        if core is None:
            return bernoulli_log_likelihood(self.logits(x, maps), x)
        inputs = x if maps is None else torch.cat([x, maps], 1)
        return core.log_likelihood(inputs.permute(0, 2, 3, 1), x.squeeze(1))

    def bound_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One-sample terms (B,), nats: log p(x|z), and log q(z|x) - log p(z), in mean the KL."""
        z, log_q = self.sample_posterior(self.encode(x), noise)
        return self.log_likelihood(x, z), log_q - self.log_prior(z)


def new_flow(config: FlowConfig, dim: int, context_dim: int = 0) -> AutoregressiveFlow:
    """ReLU inside the prior's MADEs (section 4.1), ELU inside the IAF's (Kingma et al. 2016)."""
    activation = "elu" if config.flow == "iaf" else "relu"
    return AutoregressiveFlow(
        dim, config.steps, config.hidden, config.layers, config.scale, context_dim, activation
    )


def objective(
    model: VLAE,
    x: Tensor,
    noise: Tensor | None,
    free_bits: float,
    mean_of_all: Callable[[Tensor], Tensor] | None = None,
    gamma: Tensor | None = None,
):
    """Training loss and its parts, nats an image, means over the minibatch.

    -E[log p(x|z)] + max(free_bits, KL): free bits with the whole code as one group, the
    maximum taken on the minibatch mean (Kingma et al. 2016, appendix C). Returns the
    loss and the detached (reconstruction = -log p(x|z), KL).

    `gamma`, a number as a tensor (): soft free bits instead, -E[log p(x|z)] + gamma KL
    (appendix C); the floor is then the affair of who sets gamma (vlae.training.free_bits).

    `mean_of_all`: of several processes, each with its share of the minibatch, the mean over
    them. The values are then of the whole minibatch, and so is the KL that free bits look at;
    the mean of the processes' gradients is the gradient of this loss.
    """
    if noise is None:
        reconstruction = -model.log_likelihood(x, None).mean()
        kl, free_bits = torch.zeros_like(reconstruction), 0.0
    else:
        log_likelihood, kl = model.bound_terms(x, noise)
        reconstruction, kl = -log_likelihood.mean(), kl.mean()

    def cost(kl: Tensor) -> Tensor:
        return kl.clamp(min=free_bits) if gamma is None else gamma * kl

    if mean_of_all is None:
        return reconstruction + cost(kl), (reconstruction.detach(), kl.detach())
    whole = mean_of_all(torch.stack([reconstruction, kl]).detach())
    slope = (whole[1] >= free_bits) if gamma is None else gamma
    share = reconstruction + kl * slope
    loss = whole[0] + cost(whole[1])
    return loss + (share - share.detach()), (whole[0], whole[1])
