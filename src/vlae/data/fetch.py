"""Data sets from their origins or a mirror, verified, to data/raw/ and data/NAME.npz.

A file is accepted by its checksums only, whoever served it. Whatever is written appears whole or
not at all, so that a failure leaves what was there before, and any number of processes may
fetch the same data set at once.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from vlae.data.dataset import array_names, check_arrays
from vlae.data.download import PACKERS, SUMS, download, local_path, pin, wrong_sum
from vlae.data.failure import MISSING, UNREACHABLE, Failure
from vlae.data.formats import folder as image_folder
from vlae.data.formats.registry import FORMATS, files_of, read
from vlae.data.http import below, is_http, shown
from vlae.errors import VlaeError
from vlae.images import image_kind
from vlae.storage import paths
from vlae.storage.write import write_atomically, write_npz

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "VLAE_DATA_MIRROR"
# Recipes of recorded results know these files, MNIST's, as they are published: packed.
RECORDED_AS = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
}


class NotAtHand(VlaeError):
    """A file is at none of its sources."""


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
    as long as their checksums are right; somebody may have put them there, packed or not.
    `mirror` (a folder, or a file, http or https URL; the value of VLAE_DATA_MIRROR) is tried
    before the origins: for a file `path`, MIRROR/path and MIRROR/basename, each also with .gz or
    .xz. A server gets `timeout` seconds for every 64 KiB, and `tries` tries with pauses of
    `pause`, 2 `pause`, ... seconds for what may pass.

    A data set may have an `alternative`: other files, in another format, that give the same
    arrays. They are taken if the mirror (or ROOT/data/raw/) has all of them, unless the data
    set's own files are in ROOT/data/raw/ already.

    Raises VlaeError, in one line, if a file cannot be had, is not what `spec` says, or cannot be
    written. The raw files that did come whole stay, so that the next try needs only the others.
    """
    get = partial(download, timeout=timeout, tries=tries, pause=pause)
    folder = root / "data" / "raw"

    def obtain(files: dict) -> dict[str, Path]:
        raw = {key: folder / file["path"] for key, file in files.items()}
        for key, file in files.items():
            _obtain(name, file, raw[key], mirror or None, get)
        return raw

    try:
        if spec["format"] == "folder":
            format, raw = "folder", {"all": _image_folder(name, spec, root)}
        else:
            format, raw = _either(spec, folder, obtain)
        arrays = prepare(name, spec | {"format": format}, raw)
    except OSError as error:
        raise VlaeError(f"{name}: cannot read {error.filename}: {error.strerror}") from None
    target = root / paths.dataset(name)
    write_npz(target, **arrays)
    return target


def _either(
    spec: dict, folder: Path, obtain: Callable[[dict], dict[str, Path]]
) -> tuple[str, dict[str, Path]]:
    """The raw files of a data set, or its alternative ones, by `obtain`; and their format."""
    own, other = (spec["format"], files_of(spec)), spec.get("alternative")
    if other is None or all(_is_there(folder / f["path"], f) for f in own[1].values()):
        return own[0], obtain(own[1])
    try:
        return other["format"], obtain(other["files"])
    except NotAtHand:
        pass
    try:
        return own[0], obtain(own[1])
    except NotAtHand as error:
        others = ", ".join(file["path"] for file in other["files"].values())
        raise NotAtHand(f"{error}; {others} will do as well") from None


def _image_folder(name: str, spec: dict, root: Path) -> Path:
    """The folder that the data set `name` is made from; VlaeError unless it is as pinned."""
    path = root / Path(spec["folder"]).expanduser()
    if "sha256" in spec and (found := image_folder.digest(path)) != spec["sha256"]:
        raise VlaeError(
            f"{name}: {path} is not as datasets.{name}.sha256 says; if it is meant to be another, "
            f"write {found} there"
        )
    return path


def _is_there(path: Path, file: dict) -> bool:
    """Return True if the file is in its place, or something of its name that is packed."""
    if path.is_file() and wrong_sum(path, file) is None:
        return True
    return any(Path(name).is_file() for name in _names(str(path))[1:])


def _names(path: str) -> list[str]:
    """The names that a file may have: its own, and those of it packed unless it is by its name."""
    ends = () if path.endswith(tuple(PACKERS)) else tuple(PACKERS)
    return [path, *(path + end for end in ends)]


def prepare(name: str, spec: dict, raw: dict[str, Path]) -> dict[str, np.ndarray]:
    """The prepared arrays of the data set `name` from its raw files (see Dataset).

    Raises VlaeError if a file does not hold the images that `spec` says.
    """
    arrays = read(spec, raw)
    try:
        check_arrays(arrays, image_kind(spec))
    except ValueError as error:
        raise VlaeError(f"{name}: {error}") from None
    return {key: arrays[key] for key in array_names(arrays)}


def data_recipe(name: str, spec: dict) -> dict:
    """All that the prepared data depend on: what is pinned, and what the preparation does.

    Small files of the right format and fixed content go through `prepare`; the sha256 of each
    array that comes out changes when the preparation changes its meaning, and only then. Where
    the files are downloaded from is no part of it.
    """
    recipe = {"dataset": name, **pins(spec), "sha256": _outcome(name, spec)}
    if other := spec.get("alternative"):
        spec = spec | other
        recipe["alternative"] = {
            "format": other["format"],
            "files": pins(spec)["files"],
            "sha256": _outcome(name, spec),
        }
    return recipe


def pins(spec: dict) -> dict:
    """What the prepared data depend on by the block of `datasets:`, and not by the code."""
    if spec["format"] == "folder":
        files: dict = {"all": {"folder": spec["folder"], "sha256": spec.get("sha256")}}
    else:
        files = {key: _pinned(file) for key, file in files_of(spec).items()}
    return {
        "binarization": image_kind(spec).binarization,
        "format": spec["format"],
        "splits": spec["splits"],
        "files": files,
    }


def _outcome(name: str, spec: dict) -> dict[str, str]:
    """The checksums of what the preparation makes of small files."""
    with tempfile.TemporaryDirectory() as folder:
        raw = {key: Path(folder, key) for key in pins(spec)["files"]}
        tiny = FORMATS[spec["format"]].example(raw, spec)
        arrays = prepare(name, spec | {"splits": tiny}, raw)
    return {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()}


def _pinned(file: dict) -> str | dict[str, str]:
    """The sha256 of a file, or what it is pinned by instead."""
    if "sha256" in file:
        return RECORDED_AS.get(file["sha256"], file["sha256"])
    return {kind: file[kind] for kind in SUMS if kind in file}


@contextmanager
def _no_new_folders_left(target: Path) -> Iterator[None]:
    """On any failure, take away the folders that have been made for `target` meanwhile."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not made yet, or another process has come to use it
            for folder in missing:
                folder.rmdir()
        raise


def _obtain(
    name: str, file: dict, target: Path, mirror: str | None, get: Callable[[str, dict, Path], None]
) -> None:
    """See to it that `target` is the raw file `file`; `get` downloads it from a source."""
    if target.is_file():
        wrong = wrong_sum(target, file)
        if wrong is None:
            return
        kind, found = wrong
        _warn(f"{name}: {target} has a wrong {kind} ({found:.12}...), so it is fetched again")
    packed = [path for path in _names(str(target))[1:] if os.path.isfile(path)]

    def write(path: Path) -> None:
        reasons = []
        for source in packed:
            try:
                return get(source, file, path)
            except Failure as failure:
                _warn(f"{name}: {source} is not used: {failure}")
        if mirror is not None:
            try:
                return _from_mirror(mirror, file["path"], lambda source: get(source, file, path))
            except Failure as failure:
                reasons.append(f"mirror {shown(mirror)}: {failure}")
                if failure.kind != MISSING:  # a mirror need not have every file
                    _warn(f"{name}: {reasons[-1]}; trying the origins")
        for url in file["urls"]:
            try:
                return get(os.path.expandvars(url), file, path)
            except Failure as failure:
                reasons.append(f"{shown(url)}: {failure}")
        raise NotAtHand(
            f"{name}: cannot get {file['path']} ({pin(file)}) from anywhere: "
            f"{'; '.join(reasons) or 'it has no public address'}. Put the file at {target}, or "
            f"set {MIRROR_VARIABLE} to a folder or URL that has it"
        )

    with _no_new_folders_left(target):
        write_atomically(target, write)


def _from_mirror(mirror: str, path: str, get: Callable[[str], None]) -> None:
    """Get the file `path` under one of its names at the mirror; Failure if under none."""
    if not is_http(mirror):
        folder = local_path(mirror)
        if folder is None:
            raise VlaeError(
                f"{MIRROR_VARIABLE}={shown(mirror)} is neither a folder nor a file, http or "
                "https URL"
            )
        if not folder.is_dir():
            raise VlaeError(
                f"{MIRROR_VARIABLE}={mirror}: there is no such folder; correct it, or unset it "
                "to use the origins"
            )
    basename = path.rpartition("/")[2]
    names = [path, basename]
    if "-idx" in basename:  # as some archives, and browsers that unpack it, call a file of MNIST
        names.append(basename.replace("-idx", ".idx"))
    names = [packed for name in names for packed in _names(name)]
    failures = {}
    for name in dict.fromkeys(names):
        try:
            return get(below(mirror, name))
        except Failure as failure:
            failures[name] = failure
            if failure.kind in UNREACHABLE:
                break
    # Where something was there, what was not is of no interest.
    telling = {n: f for n, f in failures.items() if f.kind != MISSING} or failures
    reason = ", ".join(f"{name}: {failure}" for name, failure in telling.items())
    raise Failure(next(iter(telling.values())).kind, reason)


def _warn(message: str) -> None:
    """Tell on stderr what went wrong and is got around."""
    logger.warning(message)
