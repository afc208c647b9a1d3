"""The model of colour images (section 4.4 and appendix B): CIFAR-10 at 32x32.

The code is a stack of feature maps; whoever uses the model sees it as a vector (B, latent_dim).
"""

import torch
from torch import Tensor

from vlae.config.schema import ColourModelConfig
from vlae.images import COLOUR, COLOUR_IMAGE
from vlae.models.base import Model, Posterior, needed, standard_normal_log_density
from vlae.nn.colour_trunk import ColourDecoder, ColourEncoder
from vlae.nn.latent_pixelcnn import LatentFlow
from vlae.nn.local_pixelcnn import LocalPixelCNN
from vlae.nn.local_pixelcnn_sampling import draw_images

SIDE = COLOUR_IMAGE[1]  # pixels of an image's side

# Images whose features are kept at a time while they are drawn: 32x32 ones of the paper's largest
# decoder take 310 MB. It is a constant because the trunk's convolutions may round otherwise in
# batches of another size.
DRAWN_TOGETHER = 32


class ColourVLAE(Model):
    """Encoder q(z|x), a diagonal Gaussian; autoregressive prior p(z); local decoder p(x|z).

    Images are scaled to [-1, 1] (vlae.nn.logistic_mixture.scaled) and square, `side` a multiple
    of 4.
    """

    kind = COLOUR.name

    def __init__(self, config: ColourModelConfig, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.code_shape = (config.latent_maps, side // 4, side // 4)
        self.latent_dim = config.latent_maps * (side // 4) ** 2
        self.encoder = ColourEncoder(config.trunk, config.widths, 2 * config.latent_maps)
        self.prior_flow = LatentFlow(
            config.latent_maps,
            config.flow_steps,
            config.flow_maps,
            config.flow_layers,
            config.flow_scale,
        )
        self.trunk = ColourDecoder(config.trunk, config.widths, config.latent_maps)
        self.pixelcnn = LocalPixelCNN(
            config.window,
            config.grayscale,
            config.blocks,
            config.maps,
            self.trunk.channels,
            config.mixtures,
        )
        self.to(memory_format=torch.channels_last)  # as the model of binary images

    def _maps(self, code: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, latent_maps, side / 4, side / 4)."""
        return code.view(-1, *self.code_shape)

    def encode(self, x: Tensor) -> Posterior:
        """Images (B, 3, side, side) -> q(z|x), without a context."""
        h = self.encoder(x)
        full = torch.promote_types(h.dtype, torch.float32)
        mean, log_std = h.to(full).flatten(1).chunk(2, 1)
        return Posterior(mean, 0.5 * log_std, None)

    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z = mean + std noise, and its log density (B,), nats."""
        z = posterior.mean + posterior.log_std.exp() * noise
        return z, standard_normal_log_density(noise) - posterior.log_std.sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), nats (B,): the flow back to its noise, and its log-determinant."""
        noise, log_det = self.prior_flow.normalise(self._maps(z))
        return standard_normal_log_density(noise.flatten(1)) + log_det

    def sample_prior(self, noise: Tensor) -> Tensor:
        """Noise (B, latent_dim) -> codes, by as many steps as a feature map has numbers."""
        return self.prior_flow.generate(self._maps(noise)).flatten(1)

    def log_likelihood(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z), nats (B,)."""
        return self.pixelcnn.log_likelihood(x, self.trunk(self._maps(needed(z))))

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """For each pixel, one number for the mixture's component and one for each colour."""
        return (4, self.side, self.side)

    def sample_images(self, z: Tensor | None, uniform: Tensor) -> Tensor:
        """x ~ p(x|z), (B, 3, side, side) in [-1, 1]."""
        parts = zip(needed(z).split(DRAWN_TOGETHER), uniform.split(DRAWN_TOGETHER), strict=True)
        with torch.no_grad():
            return torch.cat(
                [draw_images(self.pixelcnn, self.trunk(self._maps(a)), b) for a, b in parts]
            )
