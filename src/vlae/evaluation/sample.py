"""Samples of the model and "decompressions" of test images (figures 1 to 4).

Pixels are drawn in a wavefront: a pixel depends only on its window, so all pixels whose
windows are complete are drawn together, 136 steps instead of 784 for a 7x7 first kernel.
Each step computes those pixels only, so that all of them cost about one pass of the network.
The result is that of raster order under the same noise.
"""

import numpy as np
import torch
from torch import Tensor

from vlae.config.params import Run
from vlae.data.dataset import Dataset
from vlae.evaluation.evaluate import test_input
from vlae.hardware import choose_device
from vlae.models.build import Model
from vlae.models.colour_vlae import ColourVLAE
from vlae.models.vlae import SIDE, VLAE
from vlae.nn.logistic_mixture import unscaled
from vlae.nn.pixelcnn_sampling import PixelByPixel
from vlae.nn.wavefront import wavefront
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.write import write_npz
from vlae.training.train import load_model

COUNT = 100  # originals, decompressions and samples that figures are made from
COLOUR_COUNT = 500  # originals and decompressions of colour runs: a classifier judges them
AT_ONCE = 100  # images decompressed together


@torch.no_grad()
def sample_pixels(model: VLAE, maps: Tensor | None, uniform: Tensor) -> Tensor:
    """x ~ p(x|z): trunk maps (B, maps, 28, 28) or None, uniform noise (B, 1, 28, 28) -> bits."""
    if model.pixelcnn is None:
        return (uniform < torch.sigmoid(maps.to(uniform.dtype))).to(uniform.dtype)
    x = torch.zeros_like(uniform)
    network = PixelByPixel(model.pixelcnn, maps, (len(x), SIDE, SIDE))
    for pixels in wavefront(model.pixelcnn.context_pixels(), SIDE):
        pixels = pixels.to(x.device)
        rows, columns = pixels
        drawn = uniform[:, 0, rows, columns] < torch.sigmoid(network.logits(pixels))
        x[:, 0, rows, columns] = drawn.to(x.dtype)
        network.set(pixels, x[:, 0, rows, columns])
    return x


def sample_images(model: Model, z: Tensor | None, uniform: Tensor) -> Tensor:
    """x ~ p(x|z): codes (B, latent_dim), or None without a latent, and uniform noise
    (B, *noise_shape(model)) -> images as the network's input."""
    if isinstance(model, ColourVLAE):
        return model.sample_images(z, uniform)
    return sample_pixels(model, None if z is None else model.trunk(z), uniform)


def noise_shape(model: Model) -> tuple[int, int, int]:
    """Of the uniform noise that an image is drawn with; a colour image takes one number more
    for each pixel, for the mixture's component."""
    if isinstance(model, ColourVLAE):
        return (4, model.side, model.side)
    return (1, SIDE, SIDE)


@torch.no_grad()
def draw_samples(
    model: Model, count: int, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """eps -> z = f(eps) -> x ~ p(x|z): `count` images as the network's input."""
    uniform = torch.rand((count, *noise_shape(model)), generator=generator(seed, "sample pixels"))
    z = None
    if model.latent_dim:
        noise = torch.randn((count, model.latent_dim), generator=generator(seed, "sample code"))
        z = model.sample_prior(noise.to(device, dtype))
    return sample_images(model, z, uniform.to(device, dtype))


@torch.no_grad()
def decompress(model: Model, x: Tensor, seed: int) -> Tensor:
    """z ~ q(z|x), then x' ~ p(x|z), sampled; both (B, C, H, W)."""
    noise = torch.randn((len(x), model.latent_dim), generator=generator(seed, "decompress code"))
    shape = (len(x), *noise_shape(model))
    uniform = torch.rand(shape, generator=generator(seed, "decompress pixels"))
    pieces = []
    for part, of_code, of_pixels in zip(
        x.split(AT_ONCE), noise.split(AT_ONCE), uniform.split(AT_ONCE), strict=True
    ):
        z, _ = model.sample_posterior(model.encode(part), of_code.to(x))
        pieces.append(sample_images(model, z, of_pixels.to(x)))
    return torch.cat(pieces)


def decompressed(model: Model) -> int:
    """How many test images are decompressed."""
    return COLOUR_COUNT if isinstance(model, ColourVLAE) else COUNT


def write_samples(
    run: Run, dataset: Dataset, count: int | None = None, device: str = "auto"
) -> None:
    """results/samples/RUN.npz: originals, decompressions, samples, uint8 (n, 28, 28) of 0 and 1,
    or (n, 3, 32, 32) of 0 to 255; `count` of each, or the numbers above.

    Originals are evenly spaced over the test set, whose rows may be sorted by class. A
    model without a latent has no code to decompress: both arrays are empty.
    """
    on = choose_device(device)
    model = load_model(run, on)
    seed = run.evaluation.seed
    x = test_input(dataset, run.evaluation, run.evaluation.binarization_seed)
    images = min(count or decompressed(model), len(x))
    index = torch.linspace(0, len(x) - 1, images).round().long()
    index = index if model.latent_dim else index[:0]
    originals = x[index].to(on)
    again = decompress(model, originals, seed) if model.latent_dim else originals
    samples = draw_samples(model, count or COUNT, seed, on)
    as_bytes = {"originals": originals, "decompressions": again, "samples": samples}
    write_npz(
        paths.samples(run.name),
        **{k: as_stored(v).cpu().numpy() for k, v in as_bytes.items()},
        originals_index=index.numpy().astype(np.int32),
        sample_seed=np.array(seed),
    )


def as_stored(x: Tensor) -> Tensor:
    """The network's input as the data set has it: uint8 (N, H, W) bits, (N, 3, H, W) values."""
    return x[:, 0].to(torch.uint8) if x.shape[1] == 1 else unscaled(x)
