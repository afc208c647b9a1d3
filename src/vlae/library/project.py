"""Finds the project that recorded results come from: a clone of the repository.

A recorded file is taken from `results/`, or from DVC's cache or remote by the MD5 in dvc.lock. The
cache and remotes that are folders are read here; DVC itself reads remotes of any other kind.
"""

import configparser
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vlae.config.load import load_params
from vlae.config.schema import Params
from vlae.errors import VlaeError
from vlae.library import remote
from vlae.storage.dvc_lock import LOCK, read_stages
from vlae.storage.dvc_lock import md5 as content_md5

HOME = "VLAE_HOME"  # the environment variable that names a clone


@dataclass(frozen=True)
class Project:
    """A clone of the repository. `root` is its folder."""

    root: Path

    @cached_property
    def params(self) -> Params:
        """Its params.yaml. Raises VlaeError if that cannot be read."""
        return load_params(self.root / "params.yaml")

    def file(self, path: Path) -> Path:
        """Return where a recorded file is, given its path below the root: in its place, or as an
        object in DVC's cache or remote.

        Raises VlaeError if it has not been recorded, cannot be had, or is not what was recorded.
        """
        return self._found([path])[0]

    def stored(self, path: Path) -> Path | None:
        """Return where a recorded file is on this machine, as `file` does, or None.

        Raises VlaeError if it is there, but is not what was recorded.
        """
        return self._find(path, self._stores())

    def _found(self, paths: list[Path]) -> list[Path]:
        """Where these recorded files are. DVC is asked once for all that are not here."""
        unknown = [p for p in paths if not (self.root / p).exists() and not self.recorded_md5(p)]
        if unknown:
            raise VlaeError(f"{unknown[0]} has not been recorded in {self.root / LOCK}")
        found = {path: place for path in paths if (place := self.stored(path))}
        if missing := [path for path in paths if path not in found]:
            found |= self._ask_dvc(missing)
        return [found[path] for path in paths]

    def _ask_dvc(self, paths: list[Path]) -> dict[Path, Path]:
        """Where recorded files are in the cache that DVC knows, once they are fetched."""
        if not remote.installed():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise VlaeError(
                f"{paths[0]}{more}: recorded, but neither in {self.root} nor in its cache or a "
                "folder that is its remote; DVC reads other remotes, but is not installed here "
                "(`pip install dvc`, for S3 `pip install dvc-s3`)"
            )
        cache = remote.cache_folder(self.root)
        found = {path: place for path in paths if (place := self._find(path, [cache]))}
        if missing := [path for path in paths if path not in found]:
            remote.fetch(self.root, missing)
            found |= {path: place for path in missing if (place := self._find(path, [cache]))}
        if lost := [path for path in missing if path not in found]:
            raise VlaeError(f"{lost[0]} is recorded in {self.root / LOCK}, but no remote has it")
        return found

    def _find(self, path: Path, stores: Iterable[Path]) -> Path | None:
        """Where a recorded file is: in its place or one of `stores`; None if it is in neither."""
        if (self.root / path).exists():
            return self.root / path
        md5 = str(self.recorded_md5(path))
        for store in stores:
            found = store_path(store, md5)
            if found.exists():
                if content_md5(found) != md5:
                    raise VlaeError(f"{found} has changed since it was recorded; remove it")
                return found
        return None

    @contextmanager
    def files(self, paths: Iterable[Path]) -> Iterator[Path]:
        """A folder that has those of the recorded files `paths` that can be had, each below it as
        below the root: the root itself, or a temporary folder of links."""
        wanted = [path for path in paths if (self.root / path).exists() or self.recorded_md5(path)]
        if all((self.root / path).exists() for path in wanted):
            yield self.root
            return
        with tempfile.TemporaryDirectory(prefix="vlae-") as folder:
            for path, place in zip(wanted, self._found(wanted), strict=True):
                link = Path(folder, path)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(place.absolute())
            yield Path(folder)

    def recorded_md5(self, path: Path) -> str | None:
        """Return the MD5 that dvc.lock has for a file, given its path below the root."""
        return self._recorded.get(str(path))

    @cached_property
    def _recorded(self) -> dict[str, str]:
        """The MD5 of every recorded output, by its path."""
        path = self.root / LOCK
        if not path.exists():
            return {}
        outs = [out for stage in read_stages(path).values() for out in stage.get("outs", ())]
        return {out["path"]: out["md5"] for out in outs if "md5" in out}

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's cache, as the project's settings have it."""
        return next(self._stores())

    def _stores(self) -> Iterator[Path]:
        """The folders that may have an object: the cache first, then remotes that are folders."""
        settings = configparser.ConfigParser(interpolation=None)
        folder = self.root / ".dvc"
        settings.read([folder / "config", folder / "config.local"])
        yield folder / settings.get("cache", "dir", fallback="cache")
        for section in settings.sections():
            url = settings.get(section, "url", fallback="")
            if "remote" in section and url and "://" not in url:
                yield folder / url


def store_path(store: Path, md5: str) -> Path:
    """Return the path of an object in DVC's cache or in a remote that is a folder."""
    return store / "files" / "md5" / md5[:2] / md5[2:]


def find_project(home: str | os.PathLike | None = None) -> Project:
    """Return the project in the folder `home`, or the first of: the folder that VLAE_HOME names,
    the current folder or one above it, the clone that the package was installed from.

    Raises VlaeError if there is none.
    """
    named = home or os.environ.get(HOME)
    if named:
        if not _is_project(Path(named)):
            raise VlaeError(f"{named} is no clone of the vlae repository: it has no params.yaml")
        return Project(Path(named).absolute())
    for folder in _usual_places():
        if _is_project(folder):
            return Project(folder)
    raise VlaeError(
        "no clone of the vlae repository was found, which has the recorded results; "
        f"set {HOME} to its folder, or pass it as `home`"
    )


def _is_project(folder: Path) -> bool:
    return (folder / "params.yaml").exists() and (folder / LOCK).exists()


def _usual_places() -> Iterator[Path]:
    here = Path.cwd()
    yield from (here, *here.parents)
    yield Path(__file__).parents[3]  # an editable installation
    try:
        origin = importlib.metadata.distribution("vlae").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    if url is not None and url.scheme == "file":  # `pip install FOLDER` records it (PEP 610)
        yield Path(url2pathname(url.path))
