"""The images that a training step sees, and how stored numbers become the network's input."""

import torch
from torch import Tensor

from vlae.data.dataset import Dataset
from vlae.images import ImageKind, scaled, unscaled
from vlae.randomness import generator


def training_images(dataset: Dataset, split: str) -> Tensor:
    """uint8 (N, 28, 28) or (N, 3, 32, 32): the training set, for final rows with the validation
    set behind it."""
    parts = [dataset.train, dataset.valid] if split == "train+valid" else [dataset.train]
    return torch.cat([torch.from_numpy(part) for part in parts])


def permutation(seed: int, epoch: int, images: int) -> Tensor:
    """The order (images,) in which an epoch visits the images."""
    return torch.randperm(images, generator=generator(seed, "order", epoch))


def binarize(grey: Tensor, random: torch.Generator) -> Tensor:
    """uint8 grey values (B, 28, 28) -> one Bernoulli(grey / 255) draw of each, 0.0 or 1.0."""
    return bits_below(grey, torch.rand(grey.shape, generator=random, device=grey.device))


def bits_below(grey: Tensor, uniform: Tensor) -> Tensor:
    """1.0 where the draw from [0, 1) is below grey / 255, else 0.0; both (B, 28, 28)."""
    return (uniform * 255 < grey).float()


def as_input(images: Tensor, kind: ImageKind, random: torch.Generator) -> Tensor:
    """uint8 images -> network input.

    Binary ones (B, 28, 28) -> (B, 1, 28, 28) of 0.0 and 1.0: a dynamically binarized set is
    drawn afresh at each call (section 4.1); a fixed one is taken as it is. Colour images
    (B, 3, H, W) -> the same shape, scaled to [-1, 1].
    """
    if kind.binarization == "none":
        return scaled(images)
    bits = binarize(images, random) if kind.binarization == "dynamic" else images.float()
    return bits.unsqueeze(1)


def as_stored(x: Tensor) -> Tensor:
    """Network input as a data set stores it: (B, 1, H, W) -> bits uint8 (B, H, W), and
    (B, 3, H, W) in [-1, 1] -> uint8 (B, 3, H, W)."""
    return x[:, 0].to(torch.uint8) if x.shape[1] == 1 else unscaled(x)
