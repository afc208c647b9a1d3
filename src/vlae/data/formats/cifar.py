"""The binary version of CIFAR-10 (Krizhevsky 2009), read strictly and written back.

A record is 3,073 bytes: the label, 0 to 9, then 1,024 red, 1,024 green and 1,024 blue values,
each plane row by row from the top.

cifar10_tar: cifar-10-binary.tar.gz as published: data_batch_1.bin to data_batch_5.bin and
      test_batch.bin in a folder, with two short texts.
cifar10_bin: its six files of images, each by itself.

The readers return train, valid and test as uint8 (N, 3, 32, 32), and the labels of each as
uint8 (N,) under train_labels, valid_labels and test_labels. The validation images are the last
of the training ones. Anything else in a file is a VlaeError in one line that names it. Nothing
is unpacked to the disk, and nothing is ever unpickled.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np

from vlae.errors import VlaeError
from vlae.units import COLOUR_IMAGE as SHAPE

RECORD = 1 + 3 * 32 * 32
CLASSES = 10

BATCHES = 5  # files of training images, all of the same size
FOLDER = "cifar-10-batches-bin"
TRAIN_MEMBERS = tuple(f"{FOLDER}/data_batch_{i}.bin" for i in range(1, BATCHES + 1))
TEST_MEMBER = f"{FOLDER}/test_batch.bin"
TEXT_MEMBERS = (f"{FOLDER}/batches.meta.txt", f"{FOLDER}/readme.html")
TEXT_BYTES = 10_000  # no text is larger
MORE_BYTES = 2**20  # headers and padding of an archive: less than that
PAX_BYTES = 2**16  # of a header that only says more about the next one

# The files of cifar10_bin, as params.yaml names them.
BIN_FILES = (*(f"train_{i}" for i in range(1, BATCHES + 1)), "test")

Arrays = dict[str, np.ndarray]
Counts = dict[str, int]


def read_tar(path: Path, counts: Counts) -> Arrays:
    """CIFAR-10 from the archive as published.

    Every member has to be one of those named above, a regular file and of its size; a link, a
    device, an absolute name or one with `..` is none of them. Raises VlaeError otherwise, and
    unless the archive holds exactly the images of `counts`.
    """
    sizes = dict.fromkeys(TRAIN_MEMBERS, _batch(path, counts) * RECORD)
    sizes[TEST_MEMBER] = counts["test"] * RECORD
    most = sum(sizes.values()) + len(TEXT_MEMBERS) * TEXT_BYTES + MORE_BYTES
    try:
        content = _unpacked(path, zlib.decompressobj(wbits=31), most)  # 31: a gzip
        if len(content) > most:
            raise tarfile.ReadError("it unpacks to more than it may hold")
        found = _members(path, content, sizes)
    except (tarfile.TarError, EOFError, OSError, zlib.error, MemoryError) as error:
        raise VlaeError(f"{path}: a damaged tar.gz file ({_line(error)})") from None
    missing = [name for name in sizes if name not in found]
    if missing:
        raise VlaeError(f"{path}: {', '.join(missing)} missing")
    train = b"".join(found[name] for name in TRAIN_MEMBERS)
    return _splits(path, train, path, found[TEST_MEMBER], counts)


def _unpacked(path: Path, stream, most: int) -> bytes:
    """What a file of a single compressed stream unpacks to, `most` bytes and the first too many.

    However it is made, it takes one pass through a buffer of bounded size. Raises EOFError if the
    stream does not end, or the file goes on behind it.
    """
    with open(path, "rb") as file:
        content = stream.decompress(file.read(_packed(most) + 1), most + 1)
    if len(content) <= most and not stream.eof:
        raise EOFError("it ends too soon")
    if stream.unused_data.strip(b"\0"):  # zeros fill a block, of a tape or a disk
        raise EOFError("something follows it")
    return content


def _packed(size: int) -> int:
    """Bytes of a file at most that unpacks to so many: noise grows by less than that."""
    return size + size // 1000 + 2**16


def _members(path: Path, content: bytes, sizes: dict[str, int]) -> dict[str, bytes]:
    """The content of an archive's members. Of tarfile only what parses a single header: the rest
    of it follows long names, sparse files and pax records, none of which this archive has, to
    wherever they lead."""
    found, at = {}, 0
    while any(head := content[at : at + tarfile.BLOCKSIZE]):
        member = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        at += tarfile.BLOCKSIZE
        pax = member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE) and 0 <= member.size <= PAX_BYTES
        if not pax:  # those are skipped: they say a time in more digits, say
            _check_member(path, member, sizes, found)
            found[member.name] = content[at : at + member.size]
        at += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if len(content) < at + tarfile.BLOCKSIZE:  # the block of zeros behind the last member
        raise tarfile.ReadError("it ends too soon")
    if content[at:].lstrip(b"\0"):
        raise tarfile.ReadError("it goes on behind its end")
    return found


def _check_member(path: Path, member: tarfile.TarInfo, sizes: dict, found: dict) -> None:
    """Raise VlaeError unless the archive may have this member next."""
    name = member.name
    folder = name == FOLDER and member.type == tarfile.DIRTYPE
    if not folder and name not in sizes and name not in TEXT_MEMBERS:
        raise VlaeError(f"{path}: the member {name[:100]!r} does not belong to CIFAR-10")
    if not folder and member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise VlaeError(f"{path}: the member {name!r} is not a regular file")
    if name in found:
        raise VlaeError(f"{path}: the member {name!r} is there twice")
    most = 0 if folder else sizes.get(name, TEXT_BYTES)
    if member.size != sizes.get(name, member.size) or not 0 <= member.size <= most:
        wanted = f"{sizes[name]:,}" if name in sizes else f"at most {most:,}"
        raise VlaeError(f"{path}: the member {name!r} has {member.size:,} bytes, not {wanted}")


def read_bin(*paths: Path, counts: Counts) -> Arrays:
    """CIFAR-10 from the six files of BIN_FILES, in that order.

    Raises VlaeError unless the files hold exactly the images of `counts`.
    """
    batch = _batch(paths[0], counts)
    train = [_content(path, batch) for path in paths[:BATCHES]]
    test = _content(paths[BATCHES], counts["test"])
    return _splits(paths[0], b"".join(train), paths[BATCHES], test, counts)


def _content(path: Path, images: int) -> bytes:
    """The bytes of a file that has to hold so many images."""
    size, found = images * RECORD, path.stat().st_size
    if found != size:
        raise VlaeError(f"{path}: {found:,} bytes, not the {size:,} of {images:,} images")
    return path.read_bytes()


def _batch(path: Path, counts: Counts) -> int:
    """Images of a training file."""
    images = counts["train"] + counts["valid"]
    if images % BATCHES:
        raise VlaeError(f"{path}: {images:,} training images are no {BATCHES} equal batches")
    return images // BATCHES


def _splits(train_at: Path, train: bytes, test_at: Path, test: bytes, counts: Counts) -> Arrays:
    images, labels = _records(train_at, train)
    held_out = [counts["train"]]
    arrays = dict(zip(("train", "valid"), np.split(images, held_out), strict=True))
    named = dict(zip(("train_labels", "valid_labels"), np.split(labels, held_out), strict=True))
    arrays["test"], named["test_labels"] = _records(test_at, test)
    return arrays | named


def _records(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 3, 32, 32), and labels, uint8 (N,)."""
    table = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = table[:, 0].copy()
    if labels.max() >= CLASSES:
        row = int(np.argmax(labels >= CLASSES))
        raise VlaeError(f"{path}: image {row:,} of its part has the label {labels[row]}, not 0-9")
    return table[:, 1:].reshape(-1, *SHAPE), labels


def _line(error: Exception) -> str:
    """What an error says, as one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def records(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Images, uint8 (N, 3, 32, 32), with labels (N,), in the binary version of CIFAR-10."""
    flat = images.reshape(len(images), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), flat], 1).tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """A tar.gz of regular files, the same bytes each time."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    path.write_bytes(gzip.compress(content.getvalue(), mtime=0))


def _noise(count: int) -> bytes:
    """`count` records of fixed images."""
    pixels = hashlib.shake_256(f"cifar10 {count}".encode()).digest(count * (RECORD - 1))
    images = np.frombuffer(pixels, np.uint8).reshape(count, *SHAPE)
    return records(images, np.arange(count) % CLASSES)


def _batches(content: bytes) -> list[bytes]:
    size = len(content) // BATCHES
    return [content[i * size : (i + 1) * size] for i in range(BATCHES)]


def example_tar(path: Path) -> Counts:
    members = dict(zip(TRAIN_MEMBERS, _batches(_noise(10)), strict=True))
    write_tar(path, members | {TEST_MEMBER: _noise(4), TEXT_MEMBERS[0]: b"airplane\n"})
    return {"train": 7, "valid": 3, "test": 4}


def example_bin(*paths: Path) -> Counts:
    for path, part in zip(paths, [*_batches(_noise(10)), _noise(4)], strict=True):
        path.write_bytes(part)
    return {"train": 7, "valid": 3, "test": 4}
