"""The model of colour images (section 4.4 and appendix B): CIFAR-10 at 32x32.

The code is a stack of feature maps. The model's interface flattens it to a vector (B, latent_dim).
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

SIDE = COLOUR_IMAGE[1]  # height and width of an image in pixels

# Number of images drawn at a time. The cached features of 32 images of 32x32 take 310 MB with the
# paper's largest decoder. The number is fixed, because the trunk's convolutions may round
# differently in batches of another size.
DRAWN_TOGETHER = 32


class ColourVLAE(Model):
    """Diagonal Gaussian posterior q(z|x), autoregressive prior p(z) and local decoder p(x|z).

    Images are square and scaled to [-1, 1] (vlae.images.scaled); `side` is a multiple of 4.
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
        self.to(memory_format=torch.channels_last)  # as in the model of binary images

    def _maps(self, code: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, latent_maps, side / 4, side / 4)."""
        return code.view(-1, *self.code_shape)

    def encode(self, x: Tensor) -> Posterior:
        """Return q(z|x), without a context, for images (B, 3, side, side)."""
        h = self.encoder(x)
        full = torch.promote_types(h.dtype, torch.float32)
        mean, log_std = h.to(full).flatten(1).chunk(2, 1)
        return Posterior(mean, 0.5 * log_std, None)

    def sample_posterior(self, posterior: Posterior, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = mean + std noise and log q(z|x) (B,), nats."""
        z = posterior.mean + posterior.log_std.exp() * noise
        return z, standard_normal_log_density(noise) - posterior.log_std.sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), nats (B,): the log density of the flow's noise plus log-determinant."""
        noise, log_det = self.prior_flow.normalise(self._maps(z))
        return standard_normal_log_density(noise.flatten(1)) + log_det

    def sample_prior(self, noise: Tensor) -> Tensor:
        """Map noise (B, latent_dim) to codes; the flow generates them pixel by pixel."""
        return self.prior_flow.generate(self._maps(noise)).flatten(1)

    def log_likelihood(self, x: Tensor, z: Tensor | None, weighted: bool = False) -> Tensor:
        """Return log p(x|z), nats (B,); `weighted` makes no difference here."""
        return self.pixelcnn.log_likelihood(x, self.trunk(self._maps(needed(z))))

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Per pixel one number for the mixture component and one for each colour."""
        return (4, self.side, self.side)

    def sample_images(self, z: Tensor | None, uniform: Tensor) -> Tensor:
        """Sample x ~ p(x|z), (B, 3, side, side) in [-1, 1]."""
        parts = zip(needed(z).split(DRAWN_TOGETHER), uniform.split(DRAWN_TOGETHER), strict=True)
        with torch.no_grad():
            return torch.cat(
                [draw_images(self.pixelcnn, self.trunk(self._maps(a)), b) for a, b in parts]
            )
