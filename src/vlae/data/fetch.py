"""Data sets from their origins or a mirror, verified, to data/raw/ and data/NAME.npz.

A file is accepted by its sha256 only, whoever served it. Whatever is written appears whole or
not at all, so that a failure leaves what was there before, and any number of processes may
fetch the same data set at once.
"""

import errno
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from vlae.data.dataset import SPLITS, check_arrays, prepared_path
from vlae.data.download import DOWN, MISSING, Failure, download, is_http, local_path
from vlae.data.formats import PIXELS, READERS, SHAPE, WRITERS
from vlae.errors import VlaeError

MIRROR_VARIABLE = "VLAE_DATA_MIRROR"


def fetch(
    name: str,
    spec: dict,
    root: Path = Path("."),
    mirror: str | None = None,
    *,
    timeout: float = 30.0,
    tries: int = 3,
    pause: float = 1.0,
) -> Path:
    """Fetch the data set `name`, prepare it, and return the path of ROOT/data/NAME.npz.

    `spec` is its block in params.yaml. The originals are kept in ROOT/data/raw/ and used again
    as long as their sha256 is right. `mirror` (a folder, or a file, http or https URL; the value
    of VLAE_DATA_MIRROR) is tried before the origins: for a file `path`, MIRROR/path and
    MIRROR/basename, each also with .gz. A server gets `timeout` seconds for every 64 KiB, and
    `tries` tries with pauses of `pause`, 2 `pause`, ... seconds for what may pass.

    Raises VlaeError, in one line, if a file cannot be had, is not what `spec` says, or cannot be
    written. The raw files that did come whole stay, so that the next try needs only the others.
    """
    data = root / "data"
    try:
        raw = {}
        for split, file in spec["files"].items():
            raw[split] = data / "raw" / file["path"]
            get = partial(
                download,
                sha256=file["sha256"],
                size=file["bytes"],
                timeout=timeout,
                tries=tries,
                pause=pause,
            )
            _obtain(name, file, raw[split], mirror or None, get)
        target = prepared_path(name, data)
        arrays = prepare(name, spec, raw)
        with staged(target) as path:
            write_prepared(path, arrays)
    except OSError as error:
        place = error.filename2 or error.filename or data  # filename2: where to
        raise VlaeError(f"{name}: cannot use {place}: {error.strerror or error}") from None
    return target


def prepare(name: str, spec: dict, raw: dict[str, Path]) -> dict[str, np.ndarray]:
    """The images of the data set `name` from its raw files, by split: uint8 (N, 28, 28).

    A validation set without a file of its own is the end of the training file. Raises VlaeError
    if a file does not hold the images that `spec` says.
    """
    counts = spec["splits"]
    read = READERS[spec["format"]]
    arrays = {}
    for split, path in raw.items():
        takes_valid = split == "train" and "valid" not in raw
        arrays[split] = read(path, counts[split] + (counts["valid"] if takes_valid else 0))
    if "valid" not in raw:
        arrays["train"], arrays["valid"] = np.split(arrays["train"], [counts["train"]])
    try:
        check_arrays(arrays, spec["binarization"])
    except ValueError as error:
        raise VlaeError(f"{name}: {error}") from None
    return {split: arrays[split] for split in SPLITS}


def write_prepared(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a prepared data set as an uncompressed .npz: the same arrays, the same bytes."""
    # The order of the members is part of the bytes; np.savez dates them all to 1980.
    np.savez(path, **{split: arrays[split] for split in SPLITS})


def data_recipe(name: str, spec: dict) -> dict:
    """What the preparation of `name` makes of a few fixed images: the sha256 of each split.

    Files of the right format, with 5, 3 and 4 images, go through `prepare`. What comes out
    changes when the preparation changes its meaning, and only then.
    """
    tiny = spec | {"splits": {"train": 5, "valid": 3, "test": 4}}
    with tempfile.TemporaryDirectory() as folder:
        raw = {}
        for split in spec["files"]:
            count = tiny["splits"][split]
            if split == "train" and "valid" not in spec["files"]:
                count += tiny["splits"]["valid"]
            pixels = hashlib.shake_256(split.encode()).digest(count * PIXELS)
            images = np.frombuffer(pixels, np.uint8).reshape(count, *SHAPE)
            if spec["binarization"] == "fixed":
                images = images & 1
            raw[split] = Path(folder, split)
            WRITERS[spec["format"]](raw[split], images)
        arrays = prepare(name, tiny, raw)
    return {
        "dataset": name,
        "sha256": {split: hashlib.sha256(a.tobytes()).hexdigest() for split, a in arrays.items()},
    }


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path in a folder of its own to write a file to, which then becomes `target` at once.

    On any failure `target` stays as it was, and neither the file nor a folder made here is left.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        workspace = _workspace(target.parent)
        try:
            yield workspace / target.name
            _sync(workspace / target.name)
            os.replace(workspace / target.name, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(workspace)
    except BaseException:
        with suppress(OSError):  # not made yet, or another process has come to use it
            for folder in made:
                folder.rmdir()
        raise


def _workspace(folder: Path) -> Path:
    for _ in range(100):
        # Another process that failed may just be taking away the folder, having made it.
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    raise FileNotFoundError(errno.ENOENT, "the folder cannot be made", str(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _obtain(
    name: str, file: dict, target: Path, mirror: str | None, get: Callable[[str, Path], None]
) -> None:
    """See to it that `target` is the raw file `file`; `get` downloads it from a source."""
    if target.is_file():
        with open(target, "rb") as existing:
            found = hashlib.file_digest(existing, "sha256").hexdigest()
        if found == file["sha256"]:
            return
        _warn(f"{name}: {target} has a wrong sha256 ({found[:12]}...), so it is fetched again")
    reasons = []
    with staged(target) as path:
        if mirror is not None:
            try:
                return _from_mirror(mirror, file["path"], lambda source: get(source, path))
            except Failure as failure:
                reasons.append(f"mirror {_shown(mirror)}: {failure}")
                if failure.kind != MISSING:  # a mirror need not have every file
                    _warn(f"{name}: {reasons[-1]}; trying the origins")
        for url in file["urls"]:
            try:
                return get(url, path)
            except Failure as failure:
                reasons.append(f"{_shown(url)}: {failure}")
        raise VlaeError(
            f"{name}: cannot get {file['path']} (sha256 {file['sha256'][:12]}...) from anywhere: "
            f"{'; '.join(reasons)}. Put the file at {target}, or set {MIRROR_VARIABLE} to a "
            "folder or URL that has it"
        )


def _from_mirror(mirror: str, path: str, get: Callable[[str], None]) -> None:
    """Get the file `path` under one of its names at the mirror; Failure if under none."""
    if not is_http(mirror):
        folder = local_path(mirror)
        if folder is None:
            raise VlaeError(
                f"{MIRROR_VARIABLE}={_shown(mirror)} is neither a folder nor a file, http or "
                "https URL"
            )
        if not folder.is_dir():
            raise VlaeError(
                f"{MIRROR_VARIABLE}={mirror}: there is no such folder; correct it, or unset it "
                "to use the origins"
            )
    names = [path, path.rpartition("/")[2]]
    if not path.endswith(".gz"):
        names = [name + suffix for name in names for suffix in ("", ".gz")]
    failures = {}
    for name in dict.fromkeys(names):
        try:
            return get(f"{mirror.removesuffix('/')}/{name}")
        except Failure as failure:
            failures[name] = failure
            if failure.kind == DOWN:
                break
    # Where something was there, what was not is of no interest.
    telling = {n: f for n, f in failures.items() if f.kind != MISSING} or failures
    reason = ", ".join(f"{name}: {failure}" for name, failure in telling.items())
    raise Failure(next(iter(telling.values())).kind, reason)


def _shown(source: str) -> str:
    """A source as it may be shown: without user name and password."""
    return re.sub(r"//[^/@]*@", "//", source)


def _warn(message: str) -> None:
    """Tell on stderr what went wrong and is got around."""
    print(f"vlae: warning: {message}", file=sys.stderr)
