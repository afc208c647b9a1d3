"""Checks a block of `datasets:` or `labels:` in params.yaml."""

import re
from collections.abc import Sequence

from vlae.data.formats.registry import FORMATS, LABEL_FORMATS
from vlae.errors import VlaeError, suggestion
from vlae.images import BINARIZATIONS, FIXED, KINDS
from vlae.storage.checked import LONGEST_NAME, checked, mapping
from vlae.storage.read import shown

RAW_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*")
MOST_BYTES = 2**40  # limit for a raw file
MOST_IMAGES = 10_000_000  # limit for a split
MOST_CLASSES = 256  # a label is one byte


def check_dataset(spec: object, where: str) -> None:
    """Raise VlaeError, naming the key, unless `spec` is a valid block of `datasets:`."""
    required = {"title", "kind", "format", "splits"}
    spec = mapping(spec, where)
    optional = {"unavailable", "alternative"} & spec.keys()
    name = spec.get("format")
    if "format" in spec:
        checked(str, name, f"{where}.format", {"choices": tuple(FORMATS)})
    form = FORMATS.get(str(name))
    if form is FORMATS["folder"]:
        required |= {"folder"}
        optional |= {"sha256"} & spec.keys()
    elif form is None or form.own_files is None:
        required |= {"files"}
    required |= {"binarization"} if spec.get("kind") == FIXED.name else set()
    spec = mapping(spec, where, required | optional)
    if "unavailable" in spec:  # shown in tables: why runs on this data set cannot be trained
        checked(str, spec["unavailable"], f"{where}.unavailable")
    checked(str, spec["kind"], f"{where}.kind", {"choices": sorted({k.name for k in KINDS})})
    if "binarization" in spec:
        choices = {"choices": BINARIZATIONS}
        checked(str, spec["binarization"], f"{where}.binarization", choices)
    checked(str, spec["title"], f"{where}.title")
    splits = mapping(spec["splits"], f"{where}.splits", {"train", "valid", "test"})
    for split, count in splits.items():
        checked(int, count, f"{where}.splits.{split}", {"low": 1, "high": MOST_IMAGES})
    if form and form.kind not in (None, spec["kind"]):
        raise VlaeError(
            f"{where}.kind must be {form.kind} with the format {name}, not {spec['kind']}"
        )
    if "folder" in spec:
        checked(str, spec["folder"], f"{where}.folder")
        if "sha256" in spec:
            _check_digest(spec["sha256"], 64, f"{where}.sha256")
    if "files" in spec:
        _check_format(spec, where)
    if "alternative" in spec:  # other files with the same arrays (vlae.data.fetch)
        where = f"{where}.alternative"
        _check_format(mapping(spec["alternative"], where, {"format", "files"}), where)
        for key, entry in spec["alternative"]["files"].items():
            if entry["urls"]:
                raise VlaeError(
                    f"{where}.files.{key}.urls must be empty; alternative files come from a mirror"
                )


def check_labels(block: object, dataset: dict, where: str) -> None:
    """Raise VlaeError, naming the key, unless `block` is a valid block of `labels:`.

    dataset: the valid block of `datasets:` of the same name. `block` has the files that its format
    of labels needs beside the files of the images.
    """
    if dataset["format"] not in LABEL_FORMATS:
        raise VlaeError(f"{where}: images of the format {dataset['format']} have no labels")
    needed = [k for k in LABEL_FORMATS[dataset["format"]].needed if k not in dataset["files"]]
    keys = {"title", "classes", "files"} if needed else {"title", "classes"}
    block = mapping(block, where, keys)
    checked(str, block["title"], f"{where}.title")
    checked(int, block["classes"], f"{where}.classes", {"low": 2, "high": MOST_CLASSES})
    if needed:
        _check_files(block["files"], f"{where}.files", needed)


def _check_format(spec: dict, where: str) -> None:
    """Raise VlaeError unless `spec` has a valid `format` and the `files` of that format."""
    checked(str, spec["format"], f"{where}.format", {"choices": tuple(FORMATS)})
    form = FORMATS[spec["format"]]
    _check_files(spec["files"], f"{where}.files", form.needed, form.optional)


def _check_files(
    files: object, where: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Raise VlaeError unless `files` has valid entries with these keys."""
    files, known = mapping(files, where), (*needed, *optional)
    for key in files:
        if key not in known:
            hint = suggestion(key, known, "known")
            raise VlaeError(f"{where}: unknown key {shown(key)}; {hint}")
    for key in needed:
        if key not in files:
            raise VlaeError(f"{where}: key {key!r} is missing")
    for split, entry in files.items():
        at = f"{where}.{split}"
        # If the sha256 or size of a file was never published, other keys replace them.
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
            _check_digest(entry[kind], digits, f"{at}.{kind}")
        checked(int, entry[size], f"{at}.{size}", {"low": 1, "high": MOST_BYTES})
        if not isinstance(entry["urls"], list):
            raise VlaeError(
                f"{at}.urls must be a list"
            )  # the value is not shown: it may contain a token
        for i, url in enumerate(entry["urls"]):
            if not re.match(r"https?://", checked(str, url, f"{at}.urls[{i}]")):
                raise VlaeError(f"{at}.urls[{i}] must start with http:// or https://")


def _check_digest(value: object, digits: int, where: str) -> None:
    digest = checked(str, value, where)
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest):
        kind = "hexadecimal digits in small letters"
        raise VlaeError(f"{where} must be {digits} {kind}, not {shown(digest)}")
