"""Binary images in files: PNG, idx and npz, read and written a part at a time."""

import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vlae.data.formats.idx import IDX_MAGIC
from vlae.errors import VlaeError
from vlae.images import BINARY_IMAGE as SHAPE
from vlae.storage.read import shown

PIXELS = SHAPE[0] * SHAPE[1]
FORMATS = ("png", "idx", "npz")
ONES = (1, 255)  # the values that files have for a pixel that is set


@dataclass
class ImageFile:
    """Images in a file or folder: how many, in which of FORMATS, and their names (PNG only).

    `read(start, stop)` returns uint8 (stop - start, 28, 28), values as in the file.
    """

    count: int
    format: str
    names: list[str]
    read: Callable[[int, int], np.ndarray]


def binary(values: np.ndarray, one: int | None, where: str) -> tuple[np.ndarray, int | None]:
    """Return images of 0 and 1, and the value of a set pixel, None while there was none.

    Raises VlaeError for other values than 0 and `one` (1 or 255).
    """
    found = [value for value in np.unique(values).tolist() if value]
    expected = ONES if one is None else (one,)
    if len(found) > 1 or any(value not in expected for value in found):
        grey = next(v for v in found if v not in expected or len(found) > 1)
        raise VlaeError(
            f"{where}: not a binary image: it has the value {grey}; pixels must be 0 and 1, or 0 "
            "and 255, the same in all images"
        )
    return (values != 0).astype(np.uint8), found[0] if found else one


@contextmanager
def open_images(paths: list[Path], array: str | None = None) -> Iterator[ImageFile]:
    """Open PNG files or folders of them, one idx file, or one npz file.

    array: the name of the npz file's array, which is needed if several are images.
    Raises VlaeError for anything else.
    """
    if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() != ".png":
        if zipfile.is_zipfile(paths[0]):
            with _open_npz(paths[0], array) as images:
                yield images
        else:
            with _open_idx(paths[0]) as images:
                yield images
        return
    files = _png_files(paths)
    yield ImageFile(
        len(files),
        "png",
        [name for name, _ in files],
        lambda start, stop: np.stack([_read_png(path) for _, path in files[start:stop]]),
    )


def _png_files(paths: list[Path]) -> list[tuple[str, Path]]:
    """Return the name and path of each image, those of a folder in alphabetical order."""
    files: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() == ".png")
            if not inside:
                raise VlaeError(f"{path}: holds no PNG files")
            files += [(p.name, p) for p in inside]
        elif path.suffix.lower() == ".png":
            files.append((path.name, path))
        elif path.exists():
            raise VlaeError(f"{path}: name PNG files or folders of them, or one idx or npz file")
        else:
            raise VlaeError(f"{path}: no such file")
    names = Counter(name for name, _ in files)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise VlaeError(f"two images are called {twice}; they would be unpacked to one file")
    return files


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.size != (SHAPE[1], SHAPE[0]):
                raise VlaeError(f"{path}: is {image.size[0]}x{image.size[1]}, not 28x28 pixels")
            if image.mode not in ("1", "L"):
                raise VlaeError(
                    f"{path}: is a picture of mode {image.mode}, not black and white (mode 1 or L)"
                )
            return np.asarray(image.convert("L"))
    except FileNotFoundError:
        raise VlaeError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VlaeError(f"{path}: cannot be read as a PNG file ({error})") from None


@contextmanager
def _open_idx(path: Path) -> Iterator[ImageFile]:
    with open(path, "rb") as file:
        header = file.read(16)
        magic, count, *shape = struct.unpack(">4I", header) if len(header) == 16 else (0, 0)
        if magic != IDX_MAGIC:
            raise VlaeError(
                f"{path}: neither an idx file of images, unpacked, nor an npz file; name one of "
                "these, or PNG files or folders of them"
            )
        if tuple(shape) != SHAPE:
            raise VlaeError(f"{path}: images of {shape[0]}x{shape[1]}, not 28x28 pixels")
        if path.stat().st_size != 16 + count * PIXELS:
            raise VlaeError(f"{path}: its size does not fit its {count} images")

        def read(start: int, stop: int) -> np.ndarray:
            file.seek(16 + start * PIXELS)
            content = file.read((stop - start) * PIXELS)
            return np.frombuffer(content, np.uint8).reshape(-1, *SHAPE)

        yield ImageFile(count, "idx", [], read)


@contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    """Turn what zipfile raises for a damaged or unusual archive into a VlaeError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise VlaeError(f"{path}: damaged, or packed in an unknown way ({error})") from None


@contextmanager
def _open_npz(path: Path, array: str | None) -> Iterator[ImageFile]:
    with _zip_errors(path):
        archive = zipfile.ZipFile(path)
    with archive:
        with _zip_errors(path):
            counts, others = {}, []
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                with archive.open(member) as file:
                    shape, dtype = _array_in(file)
                if dtype == np.uint8 and len(shape) == 3 and shape[1:] == SHAPE and shape[0]:
                    counts[name] = shape[0]
                else:
                    others.append(f"{shown(name)} ({dtype}, shape {shape})")
        names = [array] if array is not None else list(counts)
        if len(names) != 1 or names[0] not in counts:
            there = ", ".join(counts) or f"none, but {', '.join(others[:5]) or 'no array'}"
            raise VlaeError(
                f"{path}: choose an array of images, uint8 (N, 28, 28), with --array; it has "
                f"{there}"
            )
        with _zip_errors(path):
            file = archive.open(f"{names[0]}.npy")
            _array_in(file)
        with file:

            def read(start: int, stop: int) -> np.ndarray:  # from front to back only
                with _zip_errors(path):
                    content = file.read((stop - start) * PIXELS)
                if len(content) != (stop - start) * PIXELS:
                    raise VlaeError(f"{path}: is cut short")
                return np.frombuffer(content, np.uint8).reshape(-1, *SHAPE)

            yield ImageFile(counts[names[0]], "npz", [], read)


def _array_in(file: IO[bytes]) -> tuple[tuple[int, ...], object]:
    """Read the header of an npy file; return the shape and type of the array that follows.

    An array in an order that cannot be read from front to back, or in a format that is not known,
    has the shape ().
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError, EOFError):
        return (), "unknown"
    return ((), "in Fortran's order") if fortran and len(shape) > 1 else (shape, dtype)


class ImageWriter(ABC):
    """Writes images part by part."""

    @abstractmethod
    def write(self, images: np.ndarray) -> None:
        """Write the next images, uint8 (n, 28, 28), with the values of the file."""


class _Png(ImageWriter):
    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, iter(names)

    def write(self, images: np.ndarray) -> None:
        from PIL import Image

        for image, name in zip(images, self.names, strict=False):
            Image.fromarray(image).save(self.folder / name, format="PNG", optimize=True)


class _Stream(ImageWriter):
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, images: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(images).tobytes())


@contextmanager
def image_writer(path: Path, format: str, count: int, names: list[str]) -> Iterator[ImageWriter]:
    """Return a writer of `count` images to `path`: for PNG a folder, which exists, else a file."""
    if format == "png":
        yield _Png(path, names)
    elif format == "idx":
        with open(path, "wb") as file:
            file.write(struct.pack(">4I", IDX_MAGIC, count, *SHAPE))
            yield _Stream(file)
    else:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("images.npy", "w", force_zip64=True) as member,
        ):
            np.lib.format.write_array_header_1_0(member, header)
            yield _Stream(member)
