"""Draws samples of the model and "decompressions" of test images (figures 1 to 4)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.config.schema import Run
from vlae.data.batches import as_stored
from vlae.data.dataset import Dataset
from vlae.evaluation.evaluate import test_input
from vlae.evaluation.picture import check_path, save_grid
from vlae.hardware import choose_device
from vlae.models.base import Model
from vlae.models.weights import load_model
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.write import write_npz_compressed

COUNT = 100  # recorded samples, which figures show
# Test images that are decompressed, by kind of image. A classifier needs more colour images.
DECOMPRESSED = {"binary": COUNT, "colour": 500}
AT_ONCE = 100  # images drawn together


@torch.no_grad()
def draw_samples(
    model: Model, count: int, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw `count` images as network input: eps ~ N(0, I), z = f(eps), x ~ p(x|z)."""
    uniform = torch.rand((count, *model.noise_shape), generator=generator(seed, "sample pixels"))
    z = prior_codes(model, count, seed, device, dtype) if model.latent_dim else None
    return _draw_images(model, z, uniform.to(device, dtype))


@torch.no_grad()
def prior_codes(
    model: Model, count: int, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw the codes z ~ p(z) of `draw_samples`, (count, latent_dim)."""
    noise = torch.randn((count, model.latent_dim), generator=generator(seed, "sample code"))
    return model.sample_prior(noise.to(device, dtype))


def decompress(model: Model, x: Tensor, seed: int) -> Tensor:
    """Draw z ~ q(z|x), then x' ~ p(x|z); x and x' are (B, C, H, W)."""
    return decode(model, posterior_codes(model, x, seed), seed)


@torch.no_grad()
def posterior_codes(model: Model, x: Tensor, seed: int) -> Tensor:
    """Draw z ~ q(z|x) for images (B, C, H, W), (B, latent_dim)."""
    noise = torch.randn((len(x), model.latent_dim), generator=generator(seed, "decompress code"))
    pieces = [
        model.sample_posterior(model.encode(part), of_code.to(x))[0]
        for part, of_code in zip(x.split(AT_ONCE), noise.split(AT_ONCE), strict=True)
    ]
    return torch.cat(pieces)


@torch.no_grad()
def decode(model: Model, z: Tensor, seed: int) -> Tensor:
    """Draw x ~ p(x|z), (B, C, H, W), for codes z (B, latent_dim)."""
    shape = (len(z), *model.noise_shape)
    uniform = torch.rand(shape, generator=generator(seed, "decompress pixels"))
    return _draw_images(model, z, uniform.to(z))


def _draw_images(model: Model, z: Tensor | None, uniform: Tensor) -> Tensor:
    """Draw x ~ p(x|z) from noise (B, *noise_shape), AT_ONCE images at a time."""
    pieces = []
    for start in range(0, len(uniform), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        pieces.append(model.sample_images(None if z is None else z[part], uniform[part]))
    return torch.cat(pieces)


def images_of(x: Tensor) -> np.ndarray:
    """Convert a model's images to the recorded form: uint8, (n, 28, 28) of 0 and 1, or
    (n, 3, 32, 32) of 0 to 255."""
    return as_stored(x).cpu().numpy()


def draw_picture(path: Path, run: Run, count: int, seed: int, device: str = "auto") -> None:
    """Draw `count` samples of the run's model and write them as a png file."""
    check_path(path)
    on = choose_device(device)
    save_grid(path, images_of(draw_samples(load_model(run, on), count, seed, on)))


def write_samples(
    run: Run, dataset: Dataset, count: int | None = None, device: str = "auto"
) -> None:
    """Write originals, decompressions and samples to results/samples/RUN.npz.

    Each is uint8, (n, 28, 28) of 0 and 1, or (n, 3, 32, 32) of 0 to 255. count: number of images
    of each; without it, COUNT samples and DECOMPRESSED originals.

    The originals are evenly spaced over the test set, which may be sorted by class. A model
    without a latent variable has no decompressions: both arrays are empty.
    """
    on = choose_device(device)
    model = load_model(run, on)
    seed = run.evaluation.seed
    x = test_input(dataset, run.evaluation, run.evaluation.binarization_seed)
    decompressed = min(count or DECOMPRESSED[model.kind], len(x))
    index = torch.linspace(0, len(x) - 1, decompressed).round().long()
    index = index if model.latent_dim else index[:0]
    originals = x[index].to(on)
    again = decompress(model, originals, seed) if model.latent_dim else originals
    samples = draw_samples(model, count or COUNT, seed, on)
    images = {"originals": originals, "decompressions": again, "samples": samples}
    write_npz_compressed(
        paths.samples(run.name),
        **{name: images_of(x) for name, x in images.items()},
        originals_index=index.numpy().astype(np.int32),
        sample_seed=np.array(seed),
    )
