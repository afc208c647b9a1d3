"""Compresses image files with a trained run, and unpacks them: `vlae compress`, `decompress`."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vlae.coding.bits_back import BitsBack
from vlae.coding.container import SEGMENT, Header, Reader, append_crc, words_to_bytes
from vlae.coding.image_files import ONES, binary, image_writer, open_images
from vlae.coding.network import CodingModel
from vlae.errors import VlaeError
from vlae.models.base import Model
from vlae.models.vlae import VLAE
from vlae.storage.write import write_atomically

CHECKSUM = 8  # bytes of a SHA-256 in the file


@dataclass(frozen=True)
class Compressed:
    """What was compressed: images, and bytes of the file, of which `header_bytes` describe it."""

    images: int
    file_bytes: int
    header_bytes: int

    @property
    def bits_per_image(self) -> float:
        """Bits of the segments, without header and checksum, for each image."""
        return 8 * (self.file_bytes - self.header_bytes) / self.images


def coding_model(run: str, model: Model) -> CodingModel:
    """Prepare a trained model for coding.

    Raises VlaeError for a model of colour images, which have no coder.
    """
    if not isinstance(model, VLAE):
        raise VlaeError(f"{run} is a run on colour images; only binary images can be compressed")
    return CodingModel(model)


def compress(
    run: str, model: CodingModel, paths: list[Path], out: Path, array: str | None = None
) -> Compressed:
    """Compress binary images, 28x28 pixels, into the file `out`.

    paths: PNG files or folders of them, one idx file, or one npz file, of which `array` names the
    array. Raises VlaeError for other files and images, and if `out` exists.
    """
    check_new(out)
    coder = BitsBack(model)
    with ExitStack() as stack:
        images = stack.enter_context(open_images(paths, array))
        if not images.count:
            raise VlaeError(f"{paths[0]}: holds no images")
        bar = stack.enter_context(tqdm(total=images.count, unit="image", disable=None))
        header = Header(
            run,
            model.weights,
            model.check,
            images.count,
            images.format,
            ONES[0],
            bytes(CHECKSUM),
            images.names,
        )

        def write(temporary: Path) -> None:
            one, digest = None, hashlib.sha256()
            with open(temporary, "wb") as file:
                file.write(header.to_bytes())
                for start in range(0, images.count, SEGMENT):
                    stop = min(start + SEGMENT, images.count)
                    values, one = binary(images.read(start, stop), one, str(paths[0]))
                    digest.update(values.tobytes())
                    file.write(words_to_bytes(coder.encode(torch.from_numpy(values), bar.update)))
                header.one, header.sha256 = one or ONES[0], digest.digest()[:CHECKSUM]
                file.seek(0)
                file.write(header.to_bytes())
            with open(temporary, "r+b") as file:
                append_crc(file)

        write_atomically(out, write)
    return Compressed(images.count, out.stat().st_size, len(header.to_bytes()) + 4)


def decompress(path: Path, out: Path, load: Callable[[str], CodingModel]) -> Header:
    """Unpack a file of `compress` to `out`: a folder of PNG files, or an idx or npz file.

    load: returns the coding model of a run. `out` appears when all images are there and are those
    that were compressed. Raises VlaeError for another file, a damaged one, another model, a
    machine whose arithmetic differs, and if `out` exists.
    """
    check_new(out)
    with open(path, "rb") as file:
        reader = Reader(path, file)
        if reader.lossy:
            raise VlaeError(f"{path} is a lossy file")
        header = reader.header()
        coder = BitsBack(_same_model(path, header, load(header.run)))
        write_new(out, header, lambda to: _unpack(reader, header, coder, to))
    return header


def _same_model(path: Path, header: Header, model: CodingModel) -> CodingModel:
    check_weights(path, header, model)
    if header.check != model.check:
        raise VlaeError(
            f"{path} cannot be unpacked here: this machine computes {header.run} differently than "
            "the one that compressed it"
        )
    return model


def check_weights(path: Path, header: Header, model: CodingModel) -> None:
    """Raise VlaeError unless the file was compressed with the weights of this model."""
    if header.weights != model.weights:
        raise VlaeError(
            f"{path} was compressed with other weights of {header.run} than those found here"
        )


def _unpack(reader: Reader, header: Header, coder: BitsBack, to: Path) -> None:
    digest = hashlib.sha256()
    with (
        tqdm(total=header.images, unit="image", disable=None) as bar,
        image_writer(to, header.format, header.images, header.names) as writer,
    ):
        for start in range(0, header.images, SEGMENT):
            count = min(SEGMENT, header.images - start)
            values = coder.decode(reader.segment(count), count, bar.update).numpy()
            digest.update(values.tobytes())
            writer.write(values * np.uint8(header.one))
    reader.check_end()
    if digest.digest()[:CHECKSUM] != header.sha256:
        raise VlaeError(f"{reader.path}: the images are not those that were compressed")


def check_new(out: Path) -> None:
    """Raise VlaeError if `out` exists."""
    if out.exists():
        raise VlaeError(f"{out} exists already; name another file or folder with -o")


def write_new(out: Path, header: Header, write: Callable[[Path], None]) -> None:
    """Call write(temporary path), and give what it wrote the name `out` when it is complete."""
    if header.format != "png":
        write_atomically(out, write)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
