"""Fetches a data set from its origins or a mirror to data/raw/, and prepares data/NAME.npz.

A file is accepted by its checksums only, whatever its source. A file is written completely or not
at all, so a failure keeps the file that was there before. Several processes may fetch the same
data set at once.
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
from vlae.data.formats.registry import FORMATS, Format, files_of, read
from vlae.data.http import below, is_http, shown
from vlae.errors import VlaeError
from vlae.images import image_kind
from vlae.storage import paths
from vlae.storage.write import write_atomically, write_npz

logger = logging.getLogger(__name__)

Prepare = Callable[[str, dict, dict[str, Path]], dict[str, np.ndarray]]  # see `prepare`
MIRROR_VARIABLE = "VLAE_DATA_MIRROR"
# Recorded recipes name these two files of MNIST by the checksums of the packed files.
RECORDED_AS = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
}


class NotAtHand(VlaeError):
    """Says that a file is at none of its sources."""


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

    spec: its block in params.yaml.
    mirror: the value of VLAE_DATA_MIRROR, a folder or a file, http or https URL. It is tried
        before the origins: for a file `path`, MIRROR/path and MIRROR/basename, each also with
        .gz or .xz.
    timeout: seconds that a server has for every 64 KiB.
    tries, pause: temporary failures are tried again, `tries` times in all, after pauses of
        `pause`, 2 `pause`, ... seconds.

    Raises VlaeError if a file cannot be had, is not as `spec` says, or cannot be written. Complete
    raw files stay, so that the next call fetches only the others.
    """
    with reading(name):
        format, raw = raw_files(
            name, spec, root, mirror, timeout=timeout, tries=tries, pause=pause
        )
        arrays = prepare(name, spec | {"format": format}, raw)
    target = root / paths.dataset(name)
    write_npz(target, **arrays)
    return target


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise VlaeError, with the name of a data set, if one of its files cannot be read."""
    try:
        yield
    except OSError as error:
        raise VlaeError(f"{name}: cannot read {error.filename}: {error.strerror}") from None


def raw_files(
    name: str,
    spec: dict,
    root: Path,
    mirror: str | None,
    *,
    timeout: float = 30.0,
    tries: int = 3,
    pause: float = 1.0,
) -> tuple[str, dict[str, Path]]:
    """Obtain the raw files of a data set, or of its labels; return their format and their paths.

    Raw files stay in ROOT/data/raw/ and are used again if their checksums are right. The user may
    put them there, packed or not.

    A data set may have an `alternative`: other files, in another format, that give the same
    arrays. They are used if the mirror or ROOT/data/raw/ has all of them, unless the data set's
    own files are in ROOT/data/raw/ already.

    The arguments and the errors are those of `fetch`.
    """
    get = partial(download, timeout=timeout, tries=tries, pause=pause)
    folder = root / "data" / "raw"

    def obtain(files: dict) -> dict[str, Path]:
        raw = {key: folder / file["path"] for key, file in files.items()}
        for key, file in files.items():
            _obtain(name, file, raw[key], mirror or None, get)
        return raw

    if spec["format"] == "folder":
        return "folder", {"all": _image_folder(name, spec, root)}
    return _either(spec, folder, obtain)


def _either(
    spec: dict, folder: Path, obtain: Callable[[dict], dict[str, Path]]
) -> tuple[str, dict[str, Path]]:
    """Obtain the raw files of a data set, or its alternative; return their format and paths."""
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
        raise NotAtHand(f"{error}; {others} can be used instead") from None


def _image_folder(name: str, spec: dict, root: Path) -> Path:
    """Return the folder of images of a data set. Raises VlaeError if its checksum is wrong."""
    path = root / Path(spec["folder"]).expanduser()
    if "sha256" in spec and (found := image_folder.digest(path)) != spec["sha256"]:
        raise VlaeError(
            f"{name}: the images in {path} do not have the checksum datasets.{name}.sha256; if "
            f"they are the right ones, set it to {found}"
        )
    return path


def _is_there(path: Path, file: dict) -> bool:
    """Return True if the file is at `path`, or if there is a packed file of that name."""
    if path.is_file() and wrong_sum(path, file) is None:
        return True
    return any(Path(name).is_file() for name in _names(str(path))[1:])


def _names(path: str) -> list[str]:
    """Return the names a file may have: `path` and, unless that is packed, its packed forms."""
    ends = () if path.endswith(tuple(PACKERS)) else tuple(PACKERS)
    return [path, *(path + end for end in ends)]


def prepare(name: str, spec: dict, raw: dict[str, Path]) -> dict[str, np.ndarray]:
    """Return the arrays of data/NAME.npz, made from the raw files (see Dataset).

    Raises VlaeError unless the files hold the images that `spec` describes.
    """
    arrays = read(spec, raw)
    try:
        check_arrays(arrays, image_kind(spec))
    except ValueError as error:
        raise VlaeError(f"{name}: {error}") from None
    return {key: arrays[key] for key in array_names(arrays)}


def data_recipe(
    name: str, spec: dict, formats: dict[str, Format] = FORMATS, prepare: Prepare = prepare
) -> dict:
    """Return what the prepared data depend on: the pinned files, and what the preparation does.

    Small files of fixed content go through `prepare`. The sha256 of the arrays changes exactly
    when the meaning of the preparation changes. The addresses of the files are not included.
    """

    def outcome(spec: dict) -> dict[str, str]:
        """Return the checksums of the arrays that `prepare` makes from small files."""
        with tempfile.TemporaryDirectory() as folder:
            raw = {key: Path(folder, key) for key in pins(spec)["files"]}
            tiny = formats[spec["format"]].example(raw, spec)
            arrays = prepare(name, spec | {"splits": tiny}, raw)
        return {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()}

    recipe = {"dataset": name, **pins(spec), "sha256": outcome(spec)}
    if other := spec.get("alternative"):
        spec = spec | other
        recipe["alternative"] = {
            "format": other["format"],
            "files": pins(spec)["files"],
            "sha256": outcome(spec),
        }
    return recipe


def pins(spec: dict) -> dict:
    """Return what the prepared data depend on in a block of `datasets:`, without the code."""
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


def _pinned(file: dict) -> str | dict[str, str]:
    """Return the sha256 of a file, or the checksums that pin it instead."""
    if "sha256" in file:
        return RECORDED_AS.get(file["sha256"], file["sha256"])
    return {kind: file[kind] for kind in SUMS if kind in file}


@contextmanager
def _no_new_folders_left(target: Path) -> Iterator[None]:
    """On any failure, remove the folders that were created for `target`."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not created yet, or used by another process
            for folder in missing:
                folder.rmdir()
        raise


def _obtain(
    name: str, file: dict, target: Path, mirror: str | None, get: Callable[[str, dict, Path], None]
) -> None:
    """Make sure that `target` is the raw file `file`; `get` downloads it from a source."""
    if target.is_file():
        wrong = wrong_sum(target, file)
        if wrong is None:
            return
        kind, found = wrong
        _warn(f"{name}: {target} has a wrong {kind} ({found:.12}...); it is fetched again")
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
                if failure.kind != MISSING:  # a mirror may lack files
                    _warn(f"{name}: {reasons[-1]}; trying the origins")
        for url in file["urls"]:
            try:
                return get(os.path.expandvars(url), file, path)
            except Failure as failure:
                reasons.append(f"{shown(url)}: {failure}")
        raise NotAtHand(
            f"{name}: cannot get {file['path']} ({pin(file)}): "
            f"{'; '.join(reasons) or 'it has no public address'}. Put the file at {target}, or "
            f"set {MIRROR_VARIABLE} to a folder or URL that has it"
        )

    with _no_new_folders_left(target):
        write_atomically(target, write)


def _from_mirror(mirror: str, path: str, get: Callable[[str], None]) -> None:
    """Get the file `path` from the mirror, under any of its names. Raises Failure."""
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
    if "-idx" in basename:  # some archives and browsers name a file of MNIST so
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
    # If a file was there but wrong, the names that are missing do not matter.
    telling = {n: f for n, f in failures.items() if f.kind != MISSING} or failures
    reason = ", ".join(f"{name}: {failure}" for name, failure in telling.items())
    raise Failure(next(iter(telling.values())).kind, reason)


def _warn(message: str) -> None:
    """Log a fault that does not stop the command."""
    logger.warning(message)
