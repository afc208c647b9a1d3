"""Selects the images of a training step and converts stored values to network input."""

import torch
from torch import Tensor

from vlae.data.dataset import Dataset
from vlae.images import ImageKind, scaled, unscaled
from vlae.randomness import generator


def training_images(dataset: Dataset, split: str) -> Tensor:
    """Return the training set, uint8 (N, 28, 28) or (N, 3, 32, 32).

    With split "train+valid", as for final results, the validation set follows it.
    """
    parts = [dataset.train, dataset.valid] if split == "train+valid" else [dataset.train]
    return torch.cat([torch.from_numpy(part) for part in parts])


def permutation(seed: int, epoch: int, images: int) -> Tensor:
    """Return the order (images,) in which an epoch visits the images."""
    return torch.randperm(images, generator=generator(seed, "order", epoch))


def binarize(grey: Tensor, random: torch.Generator) -> Tensor:
    """Draw Bernoulli(grey / 255), 0.0 or 1.0, for each uint8 grey value (B, 28, 28)."""
    return bits_below(grey, torch.rand(grey.shape, generator=random, device=grey.device))


def bits_below(grey: Tensor, uniform: Tensor) -> Tensor:
    """Return 1.0 where `uniform`, in [0, 1), is below grey / 255, else 0.0; all (B, 28, 28)."""
    return (uniform * 255 < grey).float()


def as_input(images: Tensor, kind: ImageKind, random: torch.Generator) -> Tensor:
    """Convert stored uint8 images to network input.

    Binary images (B, 28, 28) -> (B, 1, 28, 28) of 0.0 and 1.0. With dynamic binarization, each
    call draws new bits (section 4.1). Colour images (B, 3, H, W) -> (B, 3, H, W) in [-1, 1].
    """
    if kind.binarization == "none":
        return scaled(images)
    bits = binarize(images, random) if kind.binarization == "dynamic" else images.float()
    return bits.unsqueeze(1)


def mirrored(x: Tensor, uniform: Tensor | None) -> Tensor:
    """Mirror the images (B, C, H, W), left and right, whose `uniform` (B,) is below 1/2.

    None: return x as it is.
    """
    return x if uniform is None else torch.where((uniform < 0.5).view(-1, 1, 1, 1), x.flip(-1), x)


def as_stored(x: Tensor) -> Tensor:
    """Convert network input to the form in which a data set stores it.

    (B, 1, H, W) -> bits, uint8 (B, H, W); (B, 3, H, W) in [-1, 1] -> uint8 (B, 3, H, W).
    """
    return x[:, 0].to(torch.uint8) if x.shape[1] == 1 else unscaled(x)
