"""Data sets of torchvision, with its addresses and checksums: `torchvision:NAME`.

They have images of 28x28 grey values: FashionMNIST, KMNIST and the parts of EMNIST. The last
training images are the validation set. With `binarization: fixed`, values of at least 128
become 1.
"""

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np

from vlae.data.formats.idx import parse_idx, write_idx
from vlae.data.formats.splits import Counts, Splits, noise
from vlae.errors import VlaeError, one_line
from vlae.images import BINARY_IMAGE, image_kind

EMNIST_PARTS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
NAMES = ("FashionMNIST", "KMNIST", *(f"EMNIST-{part}" for part in EMNIST_PARTS))
KEYS = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
MOST_BYTES = 2**26  # limit for a compressed file of images
EMNIST_BYTES = 2**30  # limit for the archive with all parts of EMNIST
THRESHOLD = 128


def files(name: str, spec: dict) -> dict[str, dict]:
    """Return the raw files by key, in the form of `files` in params.yaml."""
    from torchvision import datasets

    if name.startswith("EMNIST"):
        archive = {"path": "EMNIST/gzip.zip", "md5": datasets.EMNIST.md5}
        return {"all": archive | {"max_bytes": EMNIST_BYTES, "urls": [datasets.EMNIST.url]}}
    known = getattr(datasets, name)
    sums = dict(known.resources)
    return {
        key: {
            "path": f"{name}/{file}",
            "md5": sums[file],
            "max_bytes": MOST_BYTES,
            "urls": [f"{mirror}{file}" for mirror in known.mirrors],
        }
        for key, file in KEYS.items()
    }


def read(name: str, raw: dict[str, Path], spec: dict) -> Splits:
    """Read the splits, uint8 (N, 28, 28).

    Raises VlaeError unless the files hold exactly the number of images in `spec`.
    """
    counts, fixed = spec["splits"], image_kind(spec).largest == 1
    train, test = (_images(name, raw, part) for part in ("train", "test"))
    wanted = {"training": counts["train"] + counts["valid"], "test": counts["test"]}
    for (part, count), images in zip(wanted.items(), (train, test), strict=True):
        if images.shape != (count, *BINARY_IMAGE):
            raise VlaeError(
                f"torchvision:{name} has {len(images):,} {part} images of "
                f"{' x '.join(map(str, images.shape[1:]))}, not {count:,} of 28 x 28"
            )
    grey = {"train": train[: counts["train"]], "valid": train[counts["train"] :], "test": test}
    return {key: (i >= THRESHOLD).astype(np.uint8) if fixed else i for key, i in grey.items()}


def _images(name: str, raw: dict[str, Path], part: str) -> np.ndarray:
    path = raw.get("all") or raw[part]
    try:
        if "all" not in raw:
            return parse_idx(gzip.decompress(path.read_bytes()))
        with zipfile.ZipFile(path) as archive:
            packed = archive.read(_member(name, part))
        # EMNIST, like NIST's original images, is stored in column-major order.
        return np.ascontiguousarray(parse_idx(gzip.decompress(packed)).transpose(0, 2, 1))
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, KeyError, ValueError) as e:
        raise VlaeError(f"{path}: {one_line(e) or type(e).__name__}") from None


def _member(name: str, part: str) -> str:
    return f"gzip/{name.lower()}-{part}-images-idx3-ubyte.gz"


def example(name: str, raw: dict[str, Path], spec: dict) -> Counts:
    """Write small files in the published form; return their numbers of images."""
    images = {"train": noise(8, 28, 256), "test": noise(4, 28, 256)}
    if "all" not in raw:
        for key, path in raw.items():
            write_idx(path, images[key])
    else:
        with zipfile.ZipFile(raw["all"], "w") as archive:
            for part, stored in images.items():
                member = raw["all"].with_name("member")
                write_idx(member, stored.transpose(0, 2, 1))
                archive.writestr(_member(name, part), member.read_bytes())
                member.unlink()
    return {"train": 5, "valid": 3, "test": 4}
