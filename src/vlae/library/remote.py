"""Asks DVC for recorded files: it reads remotes of every kind (S3, SSH, HTTP, …)."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vlae.errors import VlaeError


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache for the project in `root`, wherever DVC's settings (the
    project's, the user's, the machine's) have it. Raises VlaeError if DVC cannot tell."""
    return Path(root, _call(root, "cache", "dir").strip())


def fetch(root: Path, paths: Sequence[Path]) -> None:
    """Copy recorded files from the remote of the project in `root` to DVC's cache. Those that the
    remote does not have are passed over. Raises VlaeError if DVC cannot read the remote."""
    _call(root, "fetch", *map(str, paths))


def installed() -> bool:
    """Return True if DVC can be called."""
    return _command() is not None


def _command() -> list[str] | None:
    """How DVC is called: as a package of this Python, or as a program. None without either."""
    if importlib.util.find_spec("dvc"):
        return [sys.executable, "-m", "dvc"]
    program = shutil.which("dvc")
    return [program] if program else None


def _call(root: Path, *arguments: str) -> str:
    """What a call of DVC prints. Raises VlaeError, with DVC's reason, if it fails."""
    done = subprocess.run(
        [*(_command() or ("dvc",)), *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"status {done.returncode}"
        raise VlaeError(f"DVC cannot read the remote of {root}: {reason} (docs/sharing.md)")
    return done.stdout
