"""Reads files from untrusted sources, with bounded memory and without executing anything.

The memory that a file needs is known before it is unpacked. Any exception of a parser about a
damaged file becomes one type of exception.
"""

import json
import reprlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vlae.errors import VlaeError, one_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MIB = 1024 * 1024
MOST_TEXT = 32 * MIB

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 80, 80, 40


def shown(value: object) -> str:
    """Return repr(value) for a message, with bounded length for any value."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print numbers of more than 4,300 digits
        return "a number with too many digits"


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Return the text of a UTF-8 file.

    Raises VlaeError if the file cannot be read, is not UTF-8 or has more than `most` bytes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise VlaeError(f"{path}: cannot be read: more than {most:,} bytes")
        return content.decode("utf-8")
    except OSError as error:
        raise VlaeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise VlaeError(f"{path}: cannot be read: {error}") from None


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. Raises VlaeError if it cannot be read or is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VlaeError(f"{path}: not JSON: {error}") from None


def read_npz(
    file: BinaryIO, names: Sequence[str] | None = None, most: int | None = None
) -> "dict[str, np.ndarray]":
    """Return the arrays of a numpy archive: all, or those of `names` that it contains.

    The archive may unpack to at most `most` bytes, by default the size of the file, because
    only results are compressed. Raises ValueError, in one line, for any fault.
    """
    import numpy as np

    try:
        file.seek(0, 2)
        most = file.tell() if most is None else most
        file.seek(0)
        # zipfile reads each member only up to its declared size.
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > most:
            raise ValueError(f"unpacks to {unpacked:,} bytes, more than the {most:,} expected")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            wanted = archive.files if names is None else [n for n in names if n in archive.files]
            arrays = {name: archive[name] for name in wanted}
    except MemoryError:
        raise ValueError("it does not fit into memory") from None
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise ValueError(one_line(error) or type(error).__name__) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # an archive from elsewhere may hold anything
            raise ValueError(f"{one_line(name)} is not an array")
    return arrays


def read_safetensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Return a file's tensors and metadata. Raises ValueError, in one line, for any fault."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except MemoryError:
        raise ValueError("it does not fit into memory") from None
    except Exception as error:  # safetensors' own, and torch's for types it does not have
        raise ValueError(one_line(error) or type(error).__name__) from None
