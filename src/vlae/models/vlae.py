"""The models of binary images (section 4.1): one class whose parts the configuration selects.

Without a latent variable (latent_dim 0) the model is the decoder alone, and its likelihood is
exact.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vlae.config.schema import FlowConfig, ModelConfig
from vlae.images import BINARY_IMAGE, FIXED
from vlae.models.base import Model, Posterior, needed, standard_normal_log_density
from vlae.native.network import core_of
from vlae.nn.flow import AutoregressiveFlow
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.pixelcnn_sampling import draw_pixels
from vlae.nn.resnet import Decoder, Encoder
from vlae.nn.weightnorm import Linear

SIDE = BINARY_IMAGE[0]  # height and width of an image in pixels


def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """Return sum_i log p(x_i), nats: logits and x, each (B, 1, H, W) -> (B,).

    Computed in single precision or better.
    """
    logits = logits.float() if logits.dtype != torch.float64 else logits
    x = x.to(logits.dtype)
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))


class VLAE(Model):
    """A VAE of binary images with a choice of posterior, prior and decoder.

    Posterior: diagonal Gaussian or IAF. Prior: standard normal or autoregressive flow. Decoder:
    local and autoregressive (PixelCNN), or independent Bernoulli pixels.
    """

    kind = FIXED.name

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        decoder = config.decoder
        autoregressive = decoder.kind == "pixelcnn"
        self.encoder: Encoder | None = None
        self.posterior_flow: AutoregressiveFlow | None = None
        self.prior_flow: AutoregressiveFlow | None = None
        self.trunk: Decoder | None = None
        self.pixelcnn: PixelCNN | None = None
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
                decoder.last_masked,
            )
        self.to(memory_format=torch.channels_last)  # about twice as fast on a CPU

    def encode(self, x: Tensor) -> Posterior:
        """Return q(z|x), with a context for an IAF, for images (B, 1, 28, 28) of 0/1."""
        h = needed(self.encoder)(x)
        context = h if self.posterior_flow is not None else None
        full = torch.promote_types(h.dtype, torch.float32)
        return Posterior(self.mean(h).to(full), 0.5 * self.log_std(h).to(full), context)

    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, transformed by the IAF if the model has one, and log q(z|x) (B,), nats."""
        z = posterior.mean + posterior.log_std.exp() * noise
        log_q = standard_normal_log_density(noise) - posterior.log_std.sum(-1)
        if self.posterior_flow is not None:
            z, log_det = self.posterior_flow.normalise(z, posterior.context)
            log_q = log_q - log_det
        return z, log_q

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), nats (B,), under N(0, I) or the autoregressive flow."""
        if self.prior_flow is None:
            return standard_normal_log_density(z)
        noise, log_det = self.prior_flow.normalise(z)
        return standard_normal_log_density(noise) + log_det

    def sample_prior(self, noise: Tensor) -> Tensor:
        """Map noise (B, latent_dim) to codes: unchanged, or by the flow, variable by variable."""
        return noise if self.prior_flow is None else self.prior_flow.generate(noise)

    def logits(self, x: Tensor, maps: Tensor | None) -> Tensor:
        """Return the Bernoulli logits (B, 1, 28, 28) of each pixel.

        maps: the trunk's output, None without a latent variable. A PixelCNN also conditions on
        the earlier pixels of x.
        """
        return needed(maps) if self.pixelcnn is None else self.pixelcnn(x, maps)

    def log_likelihood(self, x: Tensor, z: Tensor | None, weighted: bool = False) -> Tensor:
        """Return log p(x|z), or log p(x) without a latent variable, nats (B,).

        With `weighted` the C++ core computes no gradient before it knows the images' weights.
        """
        maps = None if z is None else needed(self.trunk)(z)
        core = None if self.pixelcnn is None else core_of(self.pixelcnn, x)
        if core is None:
            return bernoulli_log_likelihood(self.logits(x, maps), x)
        inputs = x if maps is None else torch.cat([x, maps], 1)
        return core.log_likelihood(inputs.permute(0, 2, 3, 1), x.squeeze(1), weighted)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """One number per pixel."""
        return (1, SIDE, SIDE)

    @torch.no_grad()
    def sample_images(self, z: Tensor | None, uniform: Tensor) -> Tensor:
        """Sample x ~ p(x|z), bits (B, 1, 28, 28)."""
        maps = None if z is None else needed(self.trunk)(z)
        if self.pixelcnn is not None:
            return draw_pixels(self.pixelcnn, maps, uniform)
        return (uniform < torch.sigmoid(needed(maps).to(uniform.dtype))).to(uniform.dtype)


def new_flow(config: FlowConfig, dim: int, context_dim: int = 0) -> AutoregressiveFlow:
    """Build the flow that `config` describes, on `dim` latent variables."""
    return AutoregressiveFlow(
        dim,
        config.steps,
        config.hidden,
        config.layers,
        config.scale,
        context_dim,
        config.hidden_activation,
    )
