"""A clone without results/: what the library finds there comes from artifacts/."""

import shutil
from pathlib import Path

from miniature import PROJECT


def published_clone(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "artifacts").symlink_to(PROJECT / "artifacts")
    return folder


def environment(clone: Path) -> dict[str, str]:
    """The variables with which a process uses this source and that clone."""
    return {"VLAE_HOME": str(clone), "PYTHONPATH": str(PROJECT / "src")}
