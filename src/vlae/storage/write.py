"""Writes files atomically: to a temporary file in the same folder, synced, then renamed."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.errors import VlaeError

if TYPE_CHECKING:
    import numpy as np


UNFINISHED: set[Path] = set()  # temporary files, for whoever has to end at once


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call write(temporary path in the same folder), sync the file and rename it to `path`.

    If `write` fails, the temporary file is removed. Raises VlaeError if the file cannot be
    written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        UNFINISHED.add(temporary)
        write(temporary)
        os.chmod(temporary, 0o644)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise VlaeError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            UNFINISHED.discard(temporary)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with a final newline. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


class _Entry(zipfile.ZipInfo):
    """A member of an npz file, as np.savez writes it since Python 3.11.4.

    Earlier versions of Python recorded an older version of the format, and the sizes twice.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.create_version = self.extract_version = zipfile.ZIP64_VERSION

    def FileHeader(self, zip64: bool | None = None) -> bytes:
        header = bytearray(super().FileHeader(zip64))
        header[18:26] = b"\xff" * 8  # the sizes are in the 64-bit extra field
        return bytes(header)


def write_npz(path: Path, **arrays: "np.ndarray") -> None:
    """Write an uncompressed npz; the same arrays give the same bytes on any machine."""
    _write_npz(path, arrays, zipfile.ZIP_STORED)


def write_npz_compressed(path: Path, **arrays: "np.ndarray") -> None:
    """Write a compressed npz; the same arrays give the same bytes if zlib is the same."""
    _write_npz(path, arrays, zipfile.ZIP_DEFLATED)


def _write_npz(path: Path, arrays: "dict[str, np.ndarray]", method: int) -> None:
    import numpy as np

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                entry = _Entry(f"{name}.npy")
                entry.compress_type = method
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    write_atomically(path, write)


def write_safetensors(path: Path, tensors: dict, about: dict[str, str]) -> None:
    """Write tensors by name with the metadata `about`, atomically."""
    from safetensors.torch import save  # save_file raises its own error type for a full disk

    write_atomically(path, lambda temporary: temporary.write_bytes(save(tensors, about)))


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
