"""A trained model of binary images as the coder uses it: everything in fixed point."""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vlae.coding.fixed_point import FixedPoint, freeze
from vlae.coding.tables import logistic
from vlae.models.base import Posterior, needed
from vlae.models.vlae import SIDE, VLAE
from vlae.nn.pixelcnn_sampling import PixelByPixel
from vlae.nn.wavefront import wavefront
from vlae.nn.weightnorm import WeightNorm

PIXELS = SIDE * SIDE


class CodingModel:
    """q(z|x), p(z) and p(x|z) in fixed point, for images x (B, 1, 28, 28) of 0 and 1 in float64.

    z0 is what the Gaussian q(z|x) gives, z the code, u = f^-1(z) the noise of the prior, each
    (B, latent_dim). Without an IAF z0 is z, without a prior flow u is z.
    """

    def __init__(self, model: VLAE) -> None:
        self.model = freeze(deepcopy(model).cpu()).eval()
        self.latent_dim = model.latent_dim
        self.order = self._order()

    def _order(self) -> list[Tensor]:
        """Return the groups of pixels that are coded one after the other, each (2, n)."""
        pixelcnn = self.model.pixelcnn
        return wavefront(pixelcnn.context_pixels() if pixelcnn is not None else set(), SIDE)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Posterior:
        """Return q(z|x)."""
        with FixedPoint():
            return self.model.encode(x)

    @torch.no_grad()
    def code(self, z0: Tensor, context: Tensor | None) -> Tensor:
        """Return z."""
        flow = self.model.posterior_flow
        if flow is None:
            return z0
        with FixedPoint():
            return flow.normalise(z0, context)[0]

    @torch.no_grad()
    def before_flow(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return z0, the inverse of `code`."""
        flow = self.model.posterior_flow
        if flow is None:
            return z
        with FixedPoint():
            return flow.generate(z, context)

    @torch.no_grad()
    def prior_noise(self, z: Tensor) -> Tensor:
        """Return u, which is N(0, I) under the prior."""
        flow = self.model.prior_flow
        if flow is None:
            return z
        with FixedPoint():
            return flow.normalise(z)[0]

    @torch.no_grad()
    def from_prior_noise(self, u: Tensor) -> Tensor:
        """Return z, the inverse of `prior_noise`."""
        with FixedPoint():
            return self.model.sample_prior(u)

    @torch.no_grad()
    def probabilities(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Return P(x_i = 1 | z, earlier pixels), (B, 784) in the order of coding."""
        with FixedPoint():
            maps = None if z is None else needed(self.model.trunk)(z)
            logits = self.model.logits(x, maps)
        return in_order(logistic(logits), self.order)

    @torch.no_grad()
    def draw(self, z: Tensor | None, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Return images (count, 1, 28, 28) whose pixels are `choose`n, group by group.

        `choose` takes P(x_i = 1 | z, earlier pixels), (n, count), and returns the pixels' values.
        """
        x = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.float64)
        with FixedPoint():
            maps = None if z is None else needed(self.model.trunk)(z)
            network = (
                PixelByPixel(self.model.pixelcnn, maps, (count, SIDE, SIDE))
                if self.model.pixelcnn is not None
                else None
            )
        for pixels in self.order:
            rows, columns = pixels
            with FixedPoint():
                if network is None:
                    logits = needed(maps)[:, 0, rows, columns]
                else:
                    logits = network.logits(pixels)
            x[:, 0, rows, columns] = choose(logistic(logits).T).T
            if network is not None:
                with FixedPoint():
                    network.set(pixels, x[:, 0, rows, columns])
        return x

    @cached_property
    def weights(self) -> bytes:
        """The first 8 bytes of the SHA-256 of all weights and biases in fixed point."""
        digest = hashlib.sha256()
        for layer in self.model.modules():
            if isinstance(layer, WeightNorm):
                for values in (needed(layer.frozen), layer.bias):
                    digest.update(_bytes(values))
        return digest.digest()[:8]

    @cached_property
    def check(self) -> bytes:
        """4 bytes computed from what the networks give for two images of a fixed pattern.

        They differ if any part of the arithmetic does.
        """
        pattern = torch.arange(2 * PIXELS).square().remainder(251).lt(60)
        x = pattern.view(2, 1, SIDE, SIDE).double()
        found: list[Tensor] = []
        z = None
        if self.latent_dim:
            posterior = self.encode(x)
            z = self.code(posterior.mean, posterior.context)
            u = self.prior_noise(z)
            found = [posterior.mean, posterior.log_std, z, u, self.from_prior_noise(u)]
        found.append(self.probabilities(x, z))
        digest = hashlib.sha256()
        for values in found:
            digest.update(_bytes(values))
        return digest.digest()[:4]


def in_order(images: Tensor, order: list[Tensor]) -> Tensor:
    """Return the pixels of images (B, 1, H, W) in the order of coding, (B, H W)."""
    rows, columns = torch.cat(order, 1)
    return images[:, 0, rows, columns]


def _bytes(values: Tensor) -> bytes:
    return np.ascontiguousarray(values.detach().numpy()).astype("<f8").tobytes()
