"""Bits-back coding of images with a latent variable (section 2; Townsend et al. 2019).

The coder is a stack of bits (asymmetric numeral systems). For an image x the sender

1. takes z ~ q(z|x) from the stack, which removes -log2 q(z|x) bits,
2. adds x under p(x|z), and
3. adds z under p(z).

So the stack grows by log2 q(z|x) - log2 p(z) - log2 p(x|z), whose mean is the negative evidence
lower bound. The receiver undoes the steps in reverse order; when x is known, so is q(z|x), and
the bits of step 1 return to the stack.

Many images are coded at a time, because the networks are faster so. The first ones are few: their
z must come from what is on the stack, and what is missing there is added, pseudo-random, below it.
"""

from collections.abc import Callable

import constriction
import numpy as np
import torch
from torch import Tensor

from vlae.coding import distributions as d
from vlae.coding.network import PIXELS, CodingModel, in_order
from vlae.errors import VlaeError
from vlae.models.base import Posterior
from vlae.models.vlae import SIDE

LARGEST_GROUP = 64  # images that are coded together
STACK_PER_IMAGE = 8  # images that are coded before one more fits into a group
MARGIN = 2  # words that must be left on the stack: fewer, and bits may not come back
ADDED = 8  # words that are added below the stack at a time
RARE = 2.0**-12  # the probability that is given to an image that is not coded with the model

_rare = constriction.stream.model.Bernoulli(RARE, perfect=False)
_even = constriction.stream.model.Bernoulli(0.5, perfect=False)

Progress = Callable[[int], object]


def groups(images: int) -> list[int]:
    """Return the sizes of the groups that `images` images are coded in."""
    sizes, done = [], 0
    while done < images:
        size = min(max(1, done // STACK_PER_IMAGE), LARGEST_GROUP, images - done)
        sizes.append(size)
        done += size
    return sizes


def below_the_stack(word: int) -> int:
    """Return word number `word`, 32 bits, of those that are added below the stack."""
    # The finaliser of MurmurHash3: any fixed sequence without patterns will do.
    mask = 0xFFFFFFFF
    h = (word * 0x9E3779B9 + 0x7F4A7C15) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> shift)) * factor) & mask
    return h ^ (h >> 16)


class Stack:
    """The entropy coder, a stack of 32-bit words."""

    def __init__(self, words: np.ndarray | None = None) -> None:
        try:
            self.coder = d.new_coder() if words is None else d.new_coder(words)
        except ValueError:  # the last word is 0
            raise VlaeError("these are not words of the entropy coder") from None
        self.added = 0  # words below those that hold anything

    def add_below(self) -> None:
        """Add ADDED words below what is on the stack."""
        new = [below_the_stack(self.added + i) for i in range(ADDED)]
        self.added += ADDED
        self.coder = d.new_coder(np.array([*reversed(new), *self.words()], np.uint32))

    def words(self) -> np.ndarray:
        """Return what is on the stack, the top last."""
        return self.coder.get_compressed()

    def take(self, posterior: d.Posterior) -> Tensor:
        """Take variables (n,) distributed as `posterior`; add words below if there are too few."""
        while True:
            coder = self.coder.clone()
            z = d.pop_posterior(coder, posterior)
            if coder.num_words() >= MARGIN:
                self.coder = coder
                return z
            self.add_below()

    def holds_nothing(self) -> bool:
        """Return True if only words that were added below are left."""
        words = self.words().tolist()
        return words == [below_the_stack(i) for i in reversed(range(len(words)))]


class BitsBack:
    """Codes images x, uint8 (N, 28, 28) of 0 and 1, with a model."""

    def __init__(self, model: CodingModel) -> None:
        self.model = model
        self.prior = d.prior_bins()

    def encode(self, x: Tensor, progress: Progress = lambda images: None) -> np.ndarray:
        """Return words (uint32) from which `decode` gets the images."""
        stack, start = Stack(), 0
        for size in groups(len(x)):
            self.push_group(stack, x[start : start + size])
            start += size
            progress(size)
        return stack.words()

    def decode(
        self, words: np.ndarray, count: int, progress: Progress = lambda images: None
    ) -> Tensor:
        """Return the `count` images that were encoded.

        Raises VlaeError if the words were not made by `encode` from so many images.
        """
        stack = Stack(words)
        x = torch.empty(count, SIDE, SIDE, dtype=torch.uint8)
        end = count
        for size in reversed(groups(count)):
            x[end - size : end] = self._pop_group(stack, size)[:, 0].to(torch.uint8)
            end -= size
            progress(size)
        if not stack.holds_nothing():
            raise VlaeError("the bits left over are not those that coding began with")
        return x

    def push_group(self, stack: Stack, images: Tensor) -> None:
        """Put images that are coded together onto the stack."""
        x = images.double().unsqueeze(1)
        if not self.model.latent_dim:
            self._push_pixels(stack, x, None)
            return
        plain, z, u = self._take_codes(stack, x)
        if not plain.all():
            self._push_pixels(stack, x[~plain], z)
            d.push_prior(stack.coder, self.prior, u.flatten())
        bits = in_order(x[plain], self.model.order).flatten()
        stack.coder.encode_reverse(bits.to(torch.int32).numpy(), _even)
        stack.coder.encode_reverse(plain.to(torch.int32).numpy(), _rare)

    def _take_codes(self, stack: Stack, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take z from the stack for each image. Return which images are coded without the model
        (B,), and z and u of the others.

        That is for images so unlike those of the training that N(0, 1) has no bin for their u.
        """
        plain = torch.zeros(len(x), dtype=torch.bool)
        before = stack.coder.clone()
        while True:
            z0, context = self._take(stack, x[~plain])
            z = self.model.code(z0, context)
            u = self.model.prior_noise(z)
            fits = d.within_prior(u).all(1)
            if fits.all():
                return plain, z, u
            plain[~plain] = ~fits
            stack.coder = before.clone()

    def _take(self, stack: Stack, x: Tensor) -> tuple[Tensor, Tensor | None]:
        posterior = self.model.encode(x)
        z0 = stack.take(self._posterior_bins(posterior))
        return z0.view(posterior.mean.shape), posterior.context

    @staticmethod
    def _posterior_bins(posterior: Posterior) -> d.Posterior:
        return d.posterior_bins(posterior.mean.flatten(), posterior.log_std.flatten())

    def _push_pixels(self, stack: Stack, x: Tensor, z: Tensor | None) -> None:
        probabilities = self.model.probabilities(x, z).T.flatten().float().numpy()
        bits = in_order(x, self.model.order).T.flatten().to(torch.int32).numpy()
        stack.coder.encode_reverse(bits, d.pixels, probabilities)

    def _pop_group(self, stack: Stack, size: int) -> Tensor:
        if not self.model.latent_dim:
            return self._pop_pixels(stack, None, size)
        plain = torch.from_numpy(stack.coder.decode(_rare, size)).bool()
        x = torch.empty(size, 1, SIDE, SIDE, dtype=torch.float64)
        if count := int(plain.sum()):
            x[plain] = self._plain_pixels(stack, count)
        if count := size - count:
            u = d.pop_prior(stack.coder, self.prior, count * self.model.latent_dim)
            z = self.model.from_prior_noise(u.view(count, -1))
            x[~plain] = self._pop_pixels(stack, z, count)
            posterior = self.model.encode(x[~plain])
            z0 = self.model.before_flow(z, posterior.context)
            d.push_posterior(stack.coder, self._posterior_bins(posterior), z0.flatten())
        return x

    def _plain_pixels(self, stack: Stack, count: int) -> Tensor:
        bits = torch.from_numpy(stack.coder.decode(_even, count * PIXELS))
        x = torch.empty(count, 1, SIDE, SIDE, dtype=torch.float64)
        rows, columns = torch.cat(self.model.order, 1)
        x[:, 0, rows, columns] = bits.view(count, PIXELS).double()
        return x

    def _pop_pixels(self, stack: Stack, z: Tensor | None, count: int) -> Tensor:
        def choose(probabilities: Tensor) -> Tensor:
            p = probabilities.flatten().float().numpy()
            bits = torch.from_numpy(stack.coder.decode(d.pixels, p))
            return bits.view(probabilities.shape).double()

        return self.model.draw(z, count, choose)
