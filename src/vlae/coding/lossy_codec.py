"""Lossy files: sends only the code z of each image; the receiver draws the image from p(x|z)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlae.coding.codec import check_new, check_weights, write_new
from vlae.coding.container import Header, Reader, append_crc
from vlae.coding.image_files import ONES, ImageFile, binary, image_writer, open_images
from vlae.coding.network import CodingModel
from vlae.coding.relative_entropy import choose, kl, lossy_model, pack, received, unpack
from vlae.data.batches import as_stored
from vlae.errors import VlaeError
from vlae.models.base import Model, Posterior
from vlae.models.vlae import VLAE
from vlae.randomness import generator
from vlae.storage.write import write_atomically

logger = logging.getLogger(__name__)

AT_ONCE = 100  # images that the networks take together
SPARE = 2  # bits of an index beyond the mean KL, below which the codes are poor


@dataclass(frozen=True)
class LossyCompressed:
    """What was compressed: images, bytes of the file, of which `header_bytes` describe it, the
    mean KL (bits an image), the number of images whose KL is above `bits`, so that their code is
    poor, and the median of the effective number of entries of the codebook."""

    images: int
    file_bytes: int
    header_bytes: int
    bits: int
    kl_bits: float
    poor: int
    effective: float


def compress_lossy(
    run: str, model: Model, paths: list[Path], out: Path, bits: int, array: str | None = None
) -> LossyCompressed:
    """Send the codes of binary images, `bits` bits each, in the file `out`.

    paths, array: as for vlae.coding.codec.compress. Logs a warning if the images need more bits.
    Raises VlaeError for other files and images, a model without such codes, and if `out` exists.
    """
    check_new(out)
    vlae = lossy_model(run, model)
    with open_images(paths, array) as images:
        if not images.count:
            raise VlaeError(f"{paths[0]}: holds no images")
        posterior, one = _encode(vlae, images, str(paths[0]))
        format, names = images.format, images.names
    each_kl = kl(vlae, posterior)
    kl_bits, poor = float(each_kl.mean()), int((each_kl > bits).sum())
    if kl_bits > bits - SPARE:
        logger.warning(
            "the codes of these images have %.1f bits on average; with --bits %d they are poor",
            kl_bits,
            bits,
        )
    with tqdm(total=2**bits, unit="entry", unit_scale=True, disable=None) as bar:
        chosen = choose(vlae, posterior, bits, bar.update)
    count = len(chosen.index)
    weights = CodingModel(vlae).weights
    header = Header(run, weights, b"", count, format, one, b"", names, bits).to_bytes()
    content = header + pack(chosen.index, bits)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        with open(temporary, "r+b") as file:
            append_crc(file)

    write_atomically(out, write)
    described = len(header) + 4
    size, effective = out.stat().st_size, float(np.median(chosen.effective))
    return LossyCompressed(count, size, described, bits, kl_bits, poor, effective)


def file_bytes(header: Header) -> int:
    """Return the size of the lossy file with this header."""
    return len(header.to_bytes()) + _index_bytes(header) + 4


def _index_bytes(header: Header) -> int:
    return -(-header.images * header.bits // 8)


@torch.no_grad()
def _encode(model: VLAE, images: ImageFile, where: str) -> tuple[Posterior, int]:
    """Return q(z|x) of all images, and the value of a set pixel."""
    parts, one = [], None
    for start in range(0, images.count, AT_ONCE):
        values, one = binary(images.read(start, min(start + AT_ONCE, images.count)), one, where)
        parts.append(model.encode(torch.from_numpy(values).float()[:, None]))
    mean = torch.cat([part.mean for part in parts])
    log_std = torch.cat([part.log_std for part in parts])
    return Posterior(mean, log_std, None), one or ONES[0]


def decompress_lossy(path: Path, out: Path, load: Callable[[str], Model], seed: int = 0) -> Header:
    """Draw an image x ~ p(x|z) for each code of a lossy file, to `out` as `decompress` does.

    load: returns the model of a run. Another seed draws other images of the same codes. Raises
    VlaeError for another file, a damaged one, other weights, and if `out` exists.
    """
    check_new(out)
    with open(path, "rb") as file:
        reader = Reader(path, file)
        if not reader.lossy:
            raise VlaeError(f"{path} is not a lossy file")
        header = reader.header()
        content = reader.indices(_index_bytes(header))
    model = lossy_model(header.run, load(header.run))
    check_weights(path, header, CodingModel(model))
    index = unpack(content, header.images, header.bits)

    def write(temporary: Path) -> None:
        with (
            tqdm(total=header.images, unit="image", disable=None) as bar,
            image_writer(temporary, header.format, header.images, header.names) as writer,
        ):
            for start in range(0, header.images, AT_ONCE):
                z = received(model, index[start : start + AT_ONCE])
                x = as_stored(draw_images(model, z, seed, start)).numpy()
                writer.write(x * np.uint8(header.one))
                bar.update(len(x))

    write_new(out, header, write)
    return header


@torch.no_grad()
def draw_images(model: VLAE, z: Tensor, seed: int, first: int) -> Tensor:
    """Return x ~ p(x|z), (n, 1, 28, 28) of 0 and 1; `first`: the number of the first image."""
    random = generator(seed, "lossy pixels", first)
    return model.sample_images(z, torch.rand((len(z), *model.noise_shape), generator=random))
