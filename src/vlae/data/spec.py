"""A block of `datasets:` in params.yaml: what it may say, checked."""

import re

from vlae.errors import VlaeError
from vlae.images import BINARIZATIONS, FIXED, KINDS
from vlae.storage.checked import LONGEST_NAME, checked, mapping
from vlae.storage.read import shown

RAW_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*")
MOST_BYTES = 2**40  # of a raw file
MOST_IMAGES = 10_000_000  # of a split

# The raw formats (vlae.data): with a file for each split, with one file for all of them, and
# with files that together hold them.
SPLIT_FORMATS = ("amat", "idx")
WHOLE_FORMATS = ("silhouettes_mat", "chardata_mat", "lake_npz", "cifar10_tar")
PART_FORMATS = {
    "lake_zip": ("background", "evaluation"),
    "cifar10_bin": (*(f"train_{i}" for i in range(1, 6)), "test"),
}


def check_dataset(spec: object, where: str) -> None:
    """Raise VlaeError, naming the key, unless this is a block of `datasets:`."""
    required = {"title", "kind", "format", "files", "splits"}
    optional = {"unavailable", "alternative"} & mapping(spec, where).keys()
    required |= {"binarization"} if spec.get("kind") == FIXED.name else set()
    spec = mapping(spec, where, required | optional)
    if "unavailable" in spec:  # why no run on it could be trained, for the tables
        checked(str, spec["unavailable"], f"{where}.unavailable")
    checked(str, spec["kind"], f"{where}.kind", {"choices": sorted({k.name for k in KINDS})})
    if "binarization" in spec:
        choices = {"choices": BINARIZATIONS}
        checked(str, spec["binarization"], f"{where}.binarization", choices)
    checked(str, spec["title"], f"{where}.title")
    splits = mapping(spec["splits"], f"{where}.splits", {"train", "valid", "test"})
    for split, count in splits.items():
        checked(int, count, f"{where}.splits.{split}", {"low": 1, "high": MOST_IMAGES})
    _check_files(spec, where)
    if "alternative" in spec:  # other files that give the same arrays (vlae.data.fetch)
        where = f"{where}.alternative"
        _check_files(mapping(spec["alternative"], where, {"format", "files"}), where)
        for key, entry in spec["alternative"]["files"].items():
            if entry["urls"]:
                raise VlaeError(f"{where}.files.{key}.urls must be empty: only a mirror has it")


def _check_files(spec: dict, where: str) -> None:
    """`spec` has a `format`, and `files` that it takes."""
    formats = (*SPLIT_FORMATS, *WHOLE_FORMATS, *PART_FORMATS)
    checked(str, spec["format"], f"{where}.format", {"choices": formats})
    files = mapping(spec["files"], f"{where}.files")
    known, needed = ("train", "valid", "test"), ("train", "test")
    if spec["format"] not in SPLIT_FORMATS:
        known = needed = PART_FORMATS.get(spec["format"], ("all",))
    for key in files:
        if key not in known:
            raise VlaeError(f"{where}.files: unknown key {shown(key)}; known: {', '.join(known)}")
    for key in needed:
        if key not in files:
            raise VlaeError(f"{where}.files: key {key!r} is missing")
    for split, entry in files.items():
        at = f"{where}.files.{split}"
        # Where the sha256 or the size of a file was never published, others stand for them.
        sums = {"md5": 32, "git_blob": 40} if "md5" in mapping(entry, at) else {"sha256": 64}
        size = "max_bytes" if "max_bytes" in entry else "bytes"
        entry = mapping(entry, at, {"path", "urls", size, *sums})
        path = checked(str, entry["path"], f"{at}.path")
        parts = path.split("/")
        if not RAW_PATH.fullmatch(path) or {".", ".."} & set(parts) or len(path) > LONGEST_NAME:
            raise VlaeError(
                f"{at}.path must stay below data/raw (letters, digits, ._-), not {shown(path)}"
            )
        for kind, digits in sums.items():
            digest = checked(str, entry[kind], f"{at}.{kind}")
            if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest):
                raise VlaeError(
                    f"{at}.{kind} must be {digits} hexadecimal digits, not {shown(digest)}"
                )
        checked(int, entry[size], f"{at}.{size}", {"low": 1, "high": MOST_BYTES})
        if not isinstance(entry["urls"], list):
            raise VlaeError(f"{at}.urls must be a list, not {shown(entry['urls'])}")
        for i, url in enumerate(entry["urls"]):
            if not re.match(r"https?://", checked(str, url, f"{at}.urls[{i}]")):
                raise VlaeError(f"{at}.urls[{i}] must start with http:// or https://")
