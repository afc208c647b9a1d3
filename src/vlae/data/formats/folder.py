"""A folder of images of any size, in formats that Pillow reads.

Each image is scaled, with antialiasing, until its shorter side fits, and then center-cropped. A
binary data set gets 28x28 grey values; with `binarization: fixed`, values of at least 128 become
1. A data set of colour images gets 32x32 pixels. Bright pixels are the ink.

Images are turned as their EXIF orientation says. 16-bit grey values are scaled to 8 bits. Images
that have no fixed 8-bit values are refused: transparent pixels, numbers of 32 bits.

If the folder has subfolders train, valid and test, they are the splits. Without any of the three,
all images below the folder are shuffled in a fixed order and divided as `splits` says.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.data.formats.splits import Counts, Splits, noise, shuffled
from vlae.errors import VlaeError, one_line
from vlae.images import ImageKind, image_kind
from vlae.storage.write import sha256

if TYPE_CHECKING:
    from PIL.Image import Image

SPLITS = ("train", "valid", "test")
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
THRESHOLD = 128


def read(raw: dict[str, Path], spec: dict) -> Splits:
    """Read the splits, uint8 (N, 28, 28) or (N, 3, 32, 32).

    Raises VlaeError if the folder is missing, an image cannot be read, or the number of images
    differs from `splits`.
    """
    folder, kind, counts = raw["all"], image_kind(spec), spec["splits"]
    named = [split for split in SPLITS if (folder / split).is_dir()]
    if named and len(named) < len(SPLITS):
        lacking = ", ".join(split for split in SPLITS if split not in named)
        raise VlaeError(
            f"{folder}: has the folders {', '.join(named)}, but lacks {lacking}; it needs all "
            "three or none of them"
        )
    if named:
        arrays = {split: _read(list(_paths(folder / split)), kind) for split in SPLITS}
        found = {split: len(images) for split, images in arrays.items()}
        if found != counts:
            raise VlaeError(f"{folder}: holds {_listed(found)}, but splits says {_listed(counts)}")
        return arrays
    paths = list(_paths(folder))
    if len(paths) != sum(counts.values()):
        raise VlaeError(
            f"{folder}: holds {len(paths):,} images, but splits says {_listed(counts)}, "
            f"{sum(counts.values()):,} in all"
        )
    images = shuffled(_read(paths, kind))
    ends = np.cumsum([counts[split] for split in SPLITS])[:-1]
    return dict(zip(SPLITS, np.split(images, ends), strict=True))


def _listed(counts: Counts) -> str:
    return ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, sorted by name. Raises VlaeError for a missing folder."""
    if not folder.is_dir():
        raise VlaeError(f"{folder}: there is no such folder")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield path


def digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of all images below the folder."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in _paths(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read(paths: list[Path], kind: ImageKind) -> np.ndarray:
    images = [_image(path, kind) for path in paths]
    return np.stack(images) if images else np.empty((0, *kind.shape), np.uint8)


def _image(path: Path, kind: ImageKind) -> np.ndarray:
    from PIL import Image
    from torchvision.transforms import functional as F

    side = kind.shape[-1]
    try:
        with Image.open(path) as image:
            plain = _upright(image).convert("RGB" if len(kind.shape) == 3 else "L")
    except VlaeError as error:
        raise VlaeError(f"{path}: {error}") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise VlaeError(f"{path}: not a usable image ({one_line(error)})") from None
    fitted = np.asarray(F.center_crop(F.resize(plain, side, antialias=True), [side, side]))
    if len(kind.shape) == 3:
        return fitted.transpose(2, 0, 1)
    return (fitted >= THRESHOLD).astype(np.uint8) if kind.largest == 1 else fitted


def _upright(image: "Image") -> "Image":
    """Return the image with 8 bits a value, turned as its EXIF orientation says.

    Raises VlaeError if it has transparent pixels or values without a fixed range.
    """
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(image)
    if turned.has_transparency_data:
        opaque = turned.convert("RGBA")
        if np.asarray(opaque)[..., 3].min() < 255:
            raise VlaeError("has transparent pixels; store it with a background")
        return opaque.convert("RGB")
    if turned.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(turned).astype(np.uint32) // 257).astype(np.uint8))
    if turned.mode in ("I", "F"):
        raise VlaeError("has values of 32 bits; store it with 8 or 16 bits a value")
    return turned


def example(raw: dict[str, Path], spec: dict) -> Counts:
    """Write a folder with a few images of fixed noise, in sizes that the models do not use."""
    from PIL import Image

    raw["all"].mkdir()
    for number in range(12):
        Image.fromarray(noise(1, 40 + number, 256)[0]).save(raw["all"] / f"{number:02}.png")
    return {"train": 5, "valid": 3, "test": 4}
