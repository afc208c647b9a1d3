"""Files that others may have written, read within bounds or refused; nothing in them is run.

What a file may take in memory is known before it is unpacked, and whatever a parser raises on a
damaged one comes out as one kind of exception.
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
    """repr(value) for a message, of bounded length even where a few bytes make a huge value."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print numbers of more than 4,300 digits
        return "a number of too many digits"


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a file; VlaeError where it cannot be read, is no UTF-8, or has more bytes."""
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
    """The value in a JSON file; VlaeError where there is none."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VlaeError(f"{path}: not JSON: {error}") from None


def read_npz(
    file: BinaryIO, names: Sequence[str] | None = None, most: int | None = None
) -> "dict[str, np.ndarray]":
    """The arrays of a numpy archive, all or those called `names`, without those not in it.

    They take at most `most` bytes, without it what the file has: ours are not compressed.
    Raises ValueError, in one line, whatever is wrong.
    """
    import numpy as np

    try:
        file.seek(0, 2)
        most = file.tell() if most is None else most
        file.seek(0)
        # Every member is read up to the size declared for it and no further.
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > most:
            raise ValueError(f"unpacks to {unpacked:,} bytes, more than the {most:,} expected")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            wanted = archive.files if names is None else [n for n in names if n in archive.files]
            arrays = {name: archive[name] for name in wanted}
    except MemoryError:
        raise ValueError("larger than the memory") from None
    except Exception as error:  # numpy and zipfile raise a different type for every damage
        raise ValueError(one_line(error) or type(error).__name__) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a foreign archive may hold anything
            raise ValueError(f"{one_line(name)} is not an array")
    return arrays


def read_safetensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The tensors of a file and the text that goes with them; ValueError, whatever is wrong."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except MemoryError:
        raise ValueError("larger than the memory") from None
    except Exception as error:  # its own, and those of torch for types it does not have
        raise ValueError(one_line(error) or type(error).__name__) from None
