"""Reads what DVC has recorded: the stages in dvc.lock, and the MD5 by which it names a content.

DVC itself is not needed for it.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from vlae.errors import VlaeError
from vlae.storage.read import read_text

LOCK = Path("dvc.lock")


def read_stages(path: Path) -> dict[str, dict[str, Any]]:
    """The recorded stages by name, each with its `deps` and `outs`.

    Raises VlaeError if the file at `path` is missing or is not a dvc.lock.
    """
    try:
        stages = yaml.load(read_text(path), yaml.CSafeLoader)["stages"]
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError) as error:
        raise VlaeError(f"{path} cannot be read: {error!r}") from None
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        raise VlaeError(f"{path} cannot be read: its stages are no mappings")
    return stages


def md5(path: Path) -> str:
    """Return the MD5 of a file, by which DVC names its content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
