"""The file that `vlae compress` writes.

    4 bytes   "VLAE"
    1         version of the format
    1         mode: 0 lossless, 1 lossy
    string    run
    8         first bytes of the SHA-256 of the run's weights
    4         check of the weights and the arithmetic (vlae.coding.network); lossless only
    number    images
    1         format of the images: 0 png, 1 idx, 2 npz
    1         value of a pixel that is set: 1 or 255
    8         first bytes of the SHA-256 of the images, uint8 0 and 1; lossless only
    1         bits of an index; lossy only
    string    names of the images, packed by zlib, separated by NUL; png only
    ...       lossless: segments, the number of 32-bit words, then the words, little-endian;
              lossy: the indices (vlae.coding.relative_entropy)
    4         CRC-32 of all bytes before

A number has 7 bits in a byte, the lowest first, with the highest bit set in all but the last. A
string is its length in bytes, a number, and UTF-8. A segment holds SEGMENT images, the last one
the rest.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vlae.coding.image_files import FORMATS, ONES
from vlae.errors import VlaeError
from vlae.options import MOST_BITS

MAGIC, VERSION = b"VLAE", 1
SEGMENT = 16_384  # images
LOSSLESS, LOSSY = 0, 1
LONGEST_NUMBER = 9  # bytes
MOST_IMAGES = 2**31
LONGEST_NAMES = 2**28  # bytes, unpacked


@dataclass
class Header:
    """What a file says before its segments or indices.

    bits: of an index, 0 in a lossless file. check and sha256 are empty in a lossy one.
    """

    run: str
    weights: bytes
    check: bytes
    images: int
    format: str
    one: int
    sha256: bytes
    names: list[str]
    bits: int = 0

    def to_bytes(self) -> bytes:
        """Return the header as in the file."""
        mode = LOSSY if self.bits else LOSSLESS
        parts = [
            *(MAGIC, bytes([VERSION, mode]), _string(self.run.encode())),
            *(self.weights, self.check, number(self.images)),
            *(bytes([FORMATS.index(self.format), self.one]), self.sha256),
            bytes([self.bits] if self.bits else []),
        ]
        if self.format == "png":
            parts.append(_string(zlib.compress("\0".join(self.names).encode(), 9)))
        return b"".join(parts)


def number(value: int) -> bytes:
    """Return a number as in the file."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def _string(content: bytes) -> bytes:
    return number(len(content)) + content


def words_to_bytes(words: np.ndarray) -> bytes:
    """Return a segment as in the file."""
    return number(len(words)) + words.astype("<u4").tobytes()


def append_crc(file: IO[bytes]) -> None:
    """Append the CRC-32 of all bytes to a file that is open at its start, "r+b"."""
    crc = 0
    while part := file.read(2**20):
        crc = zlib.crc32(part, crc)
    file.write(struct.pack("<I", crc))


def is_lossy(path: Path) -> bool:
    """Return True if the first bytes of a file are those of a lossy one, damaged or not."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC) + 2) == MAGIC + bytes([VERSION, LOSSY])


class Reader:
    """A file whose CRC is right, read from front to back.

    Raises VlaeError for a file that is no such file, is damaged or cut short.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.end = path.stat().st_size - 4
        if self.end < len(MAGIC) or file.read(len(MAGIC)) != MAGIC:
            raise VlaeError(f"{path} is not a file of vlae compress")
        self._check_crc()
        version, mode = self._bytes(2)
        if version != VERSION or mode not in (LOSSLESS, LOSSY):
            raise VlaeError(f"{path} was written by another version of vlae ({version}, {mode})")
        self.lossy = mode == LOSSY

    def _check_crc(self) -> None:
        crc, left = zlib.crc32(MAGIC), self.end - len(MAGIC)
        while left:
            part = self.file.read(min(left, 2**20))
            if not part:
                break
            crc, left = zlib.crc32(part, crc), left - len(part)
        if self.file.read(4) != struct.pack("<I", crc):
            raise VlaeError(f"{self.path} is damaged or cut short: its checksum is wrong")
        self.file.seek(len(MAGIC))

    def header(self) -> Header:
        """Read the header."""
        try:
            run = self._bytes(self._number(1000)).decode()
            weights, check = self._bytes(8), self._bytes(0 if self.lossy else 4)
            images = self._number(MOST_IMAGES)
            format, one = self._bytes(2)
            sha256 = self._bytes(0 if self.lossy else 8)
            header = Header(run, weights, check, images, FORMATS[format], one, sha256, [])
            if self.lossy:
                (header.bits,) = self._bytes(1)
                if not 1 <= header.bits <= MOST_BITS:
                    raise ValueError(f"an index of {header.bits} bits")
            if header.format == "png":
                packed = self._bytes(self._number(LONGEST_NAMES))
                unpacked = zlib.decompressobj().decompress(packed, LONGEST_NAMES)
                header.names = unpacked.decode().split("\0")
                _check_names(header)
        except (UnicodeDecodeError, IndexError, zlib.error, ValueError) as error:
            raise VlaeError(f"{self.path}: its header makes no sense ({error})") from None
        if one not in ONES:
            raise VlaeError(f"{self.path}: its header makes no sense (a set pixel is {one})")
        return header

    def segment(self, images: int) -> np.ndarray:
        """Read the words (uint32) of the next segment, which holds `images` images."""
        count = self._number(2**31)
        return np.frombuffer(self._bytes(4 * count), "<u4").astype(np.uint32)

    def indices(self, size: int) -> bytes:
        """Read the indices of a lossy file, `size` bytes, which are all that follows."""
        content = self._bytes(size)
        self.check_end()
        return content

    def check_end(self) -> None:
        """Raise VlaeError unless everything has been read."""
        if self.file.tell() != self.end:
            raise VlaeError(f"{self.path}: more follows after its last image")

    def _bytes(self, count: int) -> bytes:
        if count > self.end - self.file.tell():
            raise VlaeError(f"{self.path}: ends before its last image")
        return self.file.read(count)

    def _number(self, largest: int) -> int:
        value = 0
        for place in range(LONGEST_NUMBER):
            (byte,) = self._bytes(1)
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        if value > largest:
            raise VlaeError(f"{self.path}: its header makes no sense (a number of {value})")
        return value


def _check_names(header: Header) -> None:
    """Raise ValueError unless there is a plain file name for each image, each another."""
    names = header.names
    if len(names) != header.images or len(set(names)) != len(names):
        raise ValueError("not one name for each image")
    for name in names:
        if Path(name).name != name or not name.lower().endswith(".png") or "\\" in name:
            raise ValueError(f"{name!r} is not the name of a PNG file")
