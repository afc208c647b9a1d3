"""The binary version of CIFAR-10 (Krizhevsky 2009): strict readers, and writers for tests.

A record is 3,073 bytes: the label, 0 to 9, then 1,024 red, 1,024 green and 1,024 blue values,
each plane row by row from the top.

cifar10_tar: cifar-10-binary.tar.gz as published. A folder has data_batch_1.bin to
      data_batch_5.bin, test_batch.bin and two short texts.
cifar10_bin: the six files of images without the archive.

The readers return train, valid and test as uint8 (N, 3, 32, 32), and the labels of each as
uint8 (N,) under train_labels, valid_labels and test_labels. The last training images are the
validation set. The readers raise VlaeError, in one line that names the file, for other content.
Nothing is unpickled. (torchvision's CIFAR10 reads the pickled version of the data set.)
"""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from vlae.errors import VlaeError, one_line
from vlae.units import COLOUR_IMAGE as SHAPE

RECORD = 1 + 3 * 32 * 32
CLASSES = 10

BATCHES = 5  # files of training images, all of the same size
FOLDER = "cifar-10-batches-bin"
TRAIN_MEMBERS = tuple(f"{FOLDER}/data_batch_{i}.bin" for i in range(1, BATCHES + 1))
TEST_MEMBER = f"{FOLDER}/test_batch.bin"
TEXT_MEMBERS = (f"{FOLDER}/batches.meta.txt", f"{FOLDER}/readme.html")

# The files of cifar10_bin, as params.yaml names them.
BIN_FILES = (*(f"train_{i}" for i in range(1, BATCHES + 1)), "test")

Arrays = dict[str, np.ndarray]
Counts = dict[str, int]


def read_tar(path: Path, counts: Counts) -> Arrays:
    """Read CIFAR-10 from the published archive, without unpacking it to disk.

    Raises VlaeError unless the archive holds exactly the images of `counts`.
    """
    batch = _batch(path, counts)
    wanted = dict.fromkeys(TRAIN_MEMBERS, batch) | {TEST_MEMBER: counts["test"]}
    try:
        with tarfile.open(path, "r:gz") as archive:
            found = {name: _member(archive, name) for name in wanted}
    except Exception as error:  # tarfile and gzip raise many types for damaged files
        if getattr(error, "filename", None) is not None:  # about the file, not its content
            raise
        why = one_line(error) or type(error).__name__
        raise VlaeError(f"{path}: a damaged tar.gz file ({why})") from None
    contents = {}
    for name, images in wanted.items():
        content = found[name]
        if content is None:
            raise VlaeError(f"{path}: {name} missing")
        if len(content) != images * RECORD:
            raise VlaeError(f"{path}: {name} has {len(content):,} bytes, {_size_of(images)}")
        contents[name] = content
    train = b"".join(contents[name] for name in TRAIN_MEMBERS)
    return _splits(path, train, path, contents[TEST_MEMBER], counts)


def _member(archive: tarfile.TarFile, name: str) -> bytes | None:
    """Return the content of a regular file in the archive, or None if there is no such file."""
    try:
        member = archive.getmember(name)
    except KeyError:
        return None
    file = archive.extractfile(member) if member.isreg() else None
    return None if file is None else file.read()


def _size_of(images: int) -> str:
    return f"not the {images * RECORD:,} of {images:,} images"


def read_bin(*paths: Path, counts: Counts) -> Arrays:
    """Read CIFAR-10 from the six files of BIN_FILES, in that order.

    Raises VlaeError unless the files hold exactly the images of `counts`.
    """
    batch = _batch(paths[0], counts)
    train = [_content(path, batch) for path in paths[:BATCHES]]
    test = _content(paths[BATCHES], counts["test"])
    return _splits(paths[0], b"".join(train), paths[BATCHES], test, counts)


def _content(path: Path, images: int) -> bytes:
    """Return the bytes of a file. Raises VlaeError unless it has the size of `images` records."""
    size, found = images * RECORD, path.stat().st_size
    if found != size:
        raise VlaeError(f"{path}: {found:,} bytes, {_size_of(images)}")
    return path.read_bytes()


def _batch(path: Path, counts: Counts) -> int:
    """Return the number of images in each training file."""
    images = counts["train"] + counts["valid"]
    if images % BATCHES:
        raise VlaeError(f"{path}: {images:,} training images are not {BATCHES} equal batches")
    return images // BATCHES


def _splits(train_at: Path, train: bytes, test_at: Path, test: bytes, counts: Counts) -> Arrays:
    images, labels = _records(train_at, train)
    held_out = [counts["train"]]
    arrays = dict(zip(("train", "valid"), np.split(images, held_out), strict=True))
    named = dict(zip(("train_labels", "valid_labels"), np.split(labels, held_out), strict=True))
    arrays["test"], named["test_labels"] = _records(test_at, test)
    return arrays | named


def _records(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 (N, 3, 32, 32), and labels, uint8 (N,), of a file's content."""
    table = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = table[:, 0].copy()
    if labels.max() >= CLASSES:
        row = int(np.argmax(labels >= CLASSES))
        raise VlaeError(f"{path}: image {row:,} of its part has the label {labels[row]}, not 0-9")
    return table[:, 1:].reshape(-1, *SHAPE), labels


def records(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Encode images, uint8 (N, 3, 32, 32), and labels (N,) as records of binary CIFAR-10."""
    flat = images.reshape(len(images), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), flat], 1).tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write a tar.gz of regular files, with the same bytes each time."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    path.write_bytes(gzip.compress(content.getvalue(), mtime=0))


def _noise(count: int) -> bytes:
    """Return `count` records with fixed noise as images."""
    pixels = hashlib.shake_256(f"cifar10 {count}".encode()).digest(count * (RECORD - 1))
    images = np.frombuffer(pixels, np.uint8).reshape(count, *SHAPE)
    return records(images, np.arange(count) % CLASSES)


def _batches(content: bytes) -> list[bytes]:
    size = len(content) // BATCHES
    return [content[i * size : (i + 1) * size] for i in range(BATCHES)]


def example_tar(path: Path) -> Counts:
    """Write a small archive; return its numbers of images."""
    members = dict(zip(TRAIN_MEMBERS, _batches(_noise(10)), strict=True))
    write_tar(path, members | {TEST_MEMBER: _noise(4), TEXT_MEMBERS[0]: b"airplane\n"})
    return {"train": 7, "valid": 3, "test": 4}


def example_bin(*paths: Path) -> Counts:
    """Write six small files, in the order of BIN_FILES; return their numbers of images."""
    for path, part in zip(paths, [*_batches(_noise(10)), _noise(4)], strict=True):
        path.write_bytes(part)
    return {"train": 7, "valid": 3, "test": 4}
