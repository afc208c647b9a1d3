"""MATLAB 5 files, as far as the data sets need them: real matrices, compressed or not.

A file is a header of 128 bytes and then elements: type, length, content. A variable is an element
of type 14, or one of type 15 that unpacks to such a one; inside it are, as elements again, flags
with the class of its numbers, its size, its name and the numbers, which may be stored as a
narrower type. SciPy reads all that there is in the format, but its reader, written in C, ends
the process on some damaged files.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

HEAD, HEADER_BYTES = b"MATLAB 5.0 MAT-file", 128
ENDS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # version 1.0 in both byte orders
MATRIX, COMPRESSED = 14, 15
FLAGS, SIZE, NAME = 6, 5, 1  # the types of what comes before the numbers
COMPLEX = 0x800  # in the flags
PEEK = 4096  # bytes in which the name of a variable is found
CLASSES = range(6, 14)  # matrices of numbers: double, single, and integers of 8 to 32 bits
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}


def is_matlab(path: Path) -> bool:
    """Whether a file begins as one of MATLAB 5."""
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
    return header.startswith(HEAD) and header.endswith(tuple(ENDS))


def read_matrices(path: Path, names: Collection[str], most: int) -> dict[str, np.ndarray]:
    """The matrices called `names`, without those not there; none may take more than `most` bytes.

    Raises ValueError, in one line, for a file that is damaged and for a variable of these names
    that is no real matrix, is there twice, or is larger.
    """
    found = {}
    with open(path, "rb") as file:
        order = ENDS[file.read(HEADER_BYTES)[-4:]]
        for name, content in _variables(file, order, names, most):
            if name in found:
                raise ValueError(f"{name} is there twice")
            found[name] = _matrix(name, content, order, most)
    return found


def _variables(
    file: BinaryIO, order: str, names: Collection[str], most: int
) -> Iterator[tuple[str, bytes]]:
    """Name and content of those variables; of the others no more is unpacked than their name."""
    while head := file.read(8):
        if len(head) < 8:
            raise ValueError("ends within an element")
        kind, size = struct.unpack(f"{order}2I", head)
        start = file.tell()
        if kind == COMPRESSED:
            name = _name(_unpacked(file.read(min(size, PEEK)), PEEK, whole=False), order)
        elif kind == MATRIX:
            name = _name(head + file.read(min(size, PEEK)), order)
        else:
            raise ValueError(f"an element of type {kind}")
        if name not in names:
            file.seek(start + size)
            continue
        if size > most:
            raise ValueError(f"{name} takes more than {most:,} bytes")
        file.seek(start)
        content = file.read(size)
        if len(content) < size:
            raise ValueError(f"ends within {name}")
        if kind == COMPRESSED:
            content = _unpacked(content, most, whole=True)
            kind, size = struct.unpack(f"{order}2I", content[:8])
            content = content[8:]
            if kind != MATRIX or len(content) != size:
                raise ValueError(f"{name} is no matrix")
        yield name, content


def _unpacked(packed: bytes, most: int, whole: bool) -> bytes:
    """What a zlib stream, or the beginning of one, unpacks to, up to `most` bytes."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, most)
        if whole and not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
            raise ValueError(f"unpacks to more than {most:,} bytes")
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if whole and not unpacker.eof:  # its checksum stands at the end
        raise ValueError("a compressed element is not whole")
    return content


def _name(beginning: bytes, order: str) -> str | None:
    """The name of the variable whose element begins like this; None if it has none."""
    if len(beginning) < 8 or struct.unpack(f"{order}2I", beginning[:8])[0] != MATRIX:
        return None
    parts = _parts(beginning[8:], order)
    for kind, content in (next(parts, (None, b"")) for _ in range(3)):
        if kind == NAME:
            return content.decode("latin-1")
    return None


def _parts(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The elements inside a variable; up to four bytes of content may stand in the tag."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}2I", content, at)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, step = at + 4, 8
        else:
            start, step = at + 8, 8 + -(-size // 8) * 8
        if (size > 4 and step == 8) or start + size > len(content):
            return
        yield kind, content[start : start + size]
        at += step


def _matrix(name: str, content: bytes, order: str, most: int) -> np.ndarray:
    parts = list(_parts(content, order))
    if [kind for kind, _ in parts[:3]] != [FLAGS, SIZE, NAME] or len(parts[0][1]) != 8:
        raise ValueError(f"{name} is no matrix")
    (flags,) = struct.unpack(f"{order}I", parts[0][1][:4])
    if flags & 0xFF not in CLASSES or flags & COMPLEX:
        raise ValueError(f"{name} is no real matrix of numbers")
    size = parts[1][1]
    if len(size) != 8:
        raise ValueError(f"{name} has not two dimensions")
    shape = struct.unpack(f"{order}2i", size)
    if min(shape) < 0 or math.prod(shape) > most:
        raise ValueError(f"{name} claims to be {shape}")
    if len(parts) != 4 or parts[3][0] not in STORED:
        raise ValueError(f"{name} has no numbers, or more than a real matrix has")
    stored, numbers = np.dtype(order + STORED[parts[3][0]]), parts[3][1]
    if len(numbers) != math.prod(shape) * stored.itemsize:
        raise ValueError(f"{name} has not as many numbers as its size says")
    native = np.frombuffer(numbers, stored).astype(stored.newbyteorder("="))
    return native.reshape(shape, order="F")
