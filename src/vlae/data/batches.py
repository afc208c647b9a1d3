"""Which images a training step sees, and how their values become the network's input."""

import torch
from torch import Tensor

from vlae.nn.logistic_mixture import scaled
from vlae.randomness import generator


def order(seed: int, epoch: int, images: int) -> Tensor:
    """The order in which an epoch visits the images: a permutation (images,)."""
    return torch.randperm(images, generator=generator(seed, "order", epoch))


def binarize(grey: Tensor, random: torch.Generator) -> Tensor:
    """uint8 grey values (B, 28, 28) -> one Bernoulli(grey / 255) draw of each, 0.0 or 1.0."""
    return bits_below(grey, torch.rand(grey.shape, generator=random, device=grey.device))


def bits_below(grey: Tensor, uniform: Tensor) -> Tensor:
    """1.0 where the draw from [0, 1) is below grey / 255, else 0.0; both (B, 28, 28)."""
    return (uniform * 255 < grey).float()


def as_input(images: Tensor, binarization: str, random: torch.Generator) -> Tensor:
    """uint8 images -> network input.

    Binary ones (B, 28, 28) -> (B, 1, 28, 28) of 0.0 and 1.0: a dynamically binarized set is
    drawn afresh at each call (section 4.1); a fixed one is taken as it is. Colour images
    (B, 3, H, W) -> the same shape, scaled to [-1, 1].
    """
    if binarization == "none":
        return scaled(images)
    bits = binarize(images, random) if binarization == "dynamic" else images.float()
    return bits.unsqueeze(1)
