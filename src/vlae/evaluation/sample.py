"""Samples of the model and "decompressions" of test images (figures 1 to 4)."""

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
from vlae.storage.write import write_npz

COUNT = 100  # samples that figures are made from
# Test images that are decompressed, by the kind of image; of colour ones a classifier judges them.
DECOMPRESSED = {"binary": COUNT, "colour": 500}
AT_ONCE = 100  # images drawn together


@torch.no_grad()
def draw_samples(
    model: Model, count: int, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """eps -> z = f(eps) -> x ~ p(x|z): `count` images as the network's input."""
    uniform = torch.rand((count, *model.noise_shape), generator=generator(seed, "sample pixels"))
    z = None
    if model.latent_dim:
        noise = torch.randn((count, model.latent_dim), generator=generator(seed, "sample code"))
        z = model.sample_prior(noise.to(device, dtype))
    pieces = []
    for start in range(0, count, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        code = None if z is None else z[part]
        pieces.append(model.sample_images(code, uniform[part].to(device, dtype)))
    return torch.cat(pieces)


@torch.no_grad()
def decompress(model: Model, x: Tensor, seed: int) -> Tensor:
    """z ~ q(z|x), then x' ~ p(x|z), sampled; both (B, C, H, W)."""
    noise = torch.randn((len(x), model.latent_dim), generator=generator(seed, "decompress code"))
    shape = (len(x), *model.noise_shape)
    uniform = torch.rand(shape, generator=generator(seed, "decompress pixels"))
    pieces = []
    for part, of_code, of_pixels in zip(
        x.split(AT_ONCE), noise.split(AT_ONCE), uniform.split(AT_ONCE), strict=True
    ):
        z, _ = model.sample_posterior(model.encode(part), of_code.to(x))
        pieces.append(model.sample_images(z, of_pixels.to(x)))
    return torch.cat(pieces)


def images_of(x: Tensor) -> np.ndarray:
    """A model's images as they are recorded and shown: uint8 (n, 28, 28) of 0 and 1, or
    (n, 3, 32, 32) of 0 to 255."""
    return as_stored(x).cpu().numpy()


def draw_picture(path: Path, run: Run, count: int, seed: int, device: str = "auto") -> None:
    """Draw `count` samples of the run's model into a picture; nothing is recorded."""
    check_path(path)
    on = choose_device(device)
    save_grid(path, images_of(draw_samples(load_model(run, on), count, seed, on)))


def write_samples(
    run: Run, dataset: Dataset, count: int | None = None, device: str = "auto"
) -> None:
    """results/samples/RUN.npz: originals, decompressions, samples, uint8 (n, 28, 28) of 0 and 1,
    or (n, 3, 32, 32) of 0 to 255; `count` of each, or COUNT and DECOMPRESSED.

    Originals are evenly spaced over the test set, whose rows may be sorted by class. A
    model without a latent has no code to decompress: both arrays are empty.
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
    write_npz(
        paths.samples(run.name),
        **{name: images_of(x) for name, x in images.items()},
        originals_index=index.numpy().astype(np.int32),
        sample_seed=np.array(seed),
    )
