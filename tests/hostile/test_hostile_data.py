"""Data files that are damaged or foreign.

What libraries parse (idx, MATLAB, tar) gets there only with its pinned checksum
(tests/data/test_gate.py); damage in such a file is then the mistake of whoever pinned it, and is
told in one line. The prepared file has no pin: it is read within bounds.
"""

import hashlib
import io
import os
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.mnist  # noqa: F401 - what it takes is not a case's memory
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import FOREIGN, PICKLE, Payload, attempt, cases, empty_folder, hostile
from miniature import PROJECT, made_up_arrays, small_params
from vlae.cli import main
from vlae.data.dataset import Dataset, load
from vlae.data.fetch import fetch
from vlae.data.formats import omniglot
from vlae.data.formats.amat import PIXELS, read_amat, write_amat
from vlae.data.formats.idx import read_idx, write_idx
from vlae.data.formats.registry import FORMATS
from vlae.errors import VlaeError
from vlae.images import FIXED
from vlae.storage.write import write_npz

COUNTS = {"train": 5, "valid": 3, "test": 4}
RANDOM = np.random.default_rng(3)
BITS = {split: RANDOM.integers(0, 2, (n, 28, 28), np.uint8) for split, n in COUNTS.items()}
DRAWN = {"train": 27, "valid": 3, "test": 9}
MIB = 2**20


def written(write, *arguments) -> bytes:
    with empty_folder() as folder:
        write(folder / "file", *arguments)
        return (folder / "file").read_bytes()


READERS = {"amat": read_amat, "idx": read_idx}
WRITERS = {"amat": write_amat, "idx": write_idx}
IMAGES = {"amat": BITS["train"], "idx": RANDOM.integers(0, 256, (5, 28, 28), np.uint8)}
RAW = {kind: written(WRITERS[kind], images) for kind, images in IMAGES.items()}
WHOLE = {
    "lake_npz": (written(omniglot.write_npz, omniglot.example(Glagolitic=1, Greek=1)), DRAWN),
}
LAKE_ZIPS = {
    "background": written(omniglot.write_zip, "background", omniglot.example(Greek=1)),
    "evaluation": written(omniglot.write_zip, "evaluation", omniglot.example(Glagolitic=1)),
}


def read_raw(kind: str, content: bytes):
    with empty_folder() as folder:
        (folder / "file").write_bytes(content)
        outcome = attempt(f"data file, {kind}", folder, READERS[kind], folder / "file", 5)
    if not isinstance(outcome, VlaeError):
        assert outcome.shape == (5, 28, 28) and outcome.dtype == np.uint8
    return outcome


@pytest.mark.parametrize("kind", RAW)
@cases(60)
@given(data=st.data())
def test_damaged_raw_files(kind, data):
    outcome = read_raw(kind, data.draw(hostile(RAW[kind])))
    # A gzip has a checksum: what it lets through is what was written.
    if kind == "idx" and not isinstance(outcome, VlaeError):
        assert np.array_equal(outcome, IMAGES[kind])


def read_whole(kind: str, content: bytes):
    counts = WHOLE[kind][1]
    with empty_folder() as folder:
        (folder / "file").write_bytes(content)
        raw, spec = {"all": folder / "file"}, {"splits": counts}
        outcome = attempt(f"data file, {kind}", folder, FORMATS[kind].read, raw, spec)
    if not isinstance(outcome, VlaeError):
        for split, count in counts.items():
            assert outcome[split].shape == (count, 28, 28) and outcome[split].dtype == np.uint8
    return outcome


@pytest.mark.parametrize("kind", WHOLE)
@cases(60)
@given(data=st.data())
def test_damaged_archives(kind, data):
    read_whole(kind, data.draw(hostile(WHOLE[kind][0])))


@cases(60)
@given(data=st.data())
def test_drawings_damaged_below_their_compression(data):
    members = {}
    with zipfile.ZipFile(io.BytesIO(WHOLE["lake_npz"][0])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(members)))
    members[name] = data.draw(hostile(members[name]))
    read_whole("lake_npz", zipped(members))


def read_zips(background: bytes, evaluation: bytes):
    with empty_folder() as folder:
        paths = [folder / "background", folder / "evaluation"]
        for path, content in zip(paths, (background, evaluation), strict=True):
            path.write_bytes(content)
        raw = dict(zip(("background", "evaluation"), paths, strict=True))
        read = partial(FORMATS["lake_zip"].read, raw, {"splits": DRAWN})
        return attempt("data file, lake_zip", folder, read)


@cases(60)
@given(data=st.data())
def test_damaged_zips_of_drawings(data):
    changed = data.draw(st.sampled_from(sorted(LAKE_ZIPS)))
    read_zips(**LAKE_ZIPS | {changed: data.draw(hostile(LAKE_ZIPS[changed]))})


@cases(60)
@given(data=st.data())
def test_damaged_drawings_in_a_whole_zip(data):
    with zipfile.ZipFile(io.BytesIO(LAKE_ZIPS["background"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(members)))
    members[name] = data.draw(hostile(members[name]))
    read_zips(zipped(members), LAKE_ZIPS["evaluation"])


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


# --- The prepared file -----------------------------------------------------------------------


def load_prepared(content: bytes):
    with empty_folder() as folder:
        (folder / "tiny.npz").write_bytes(content)
        outcome = attempt("prepared data set, npz", folder, load, "tiny", FIXED, folder)
    if not isinstance(outcome, VlaeError):
        assert isinstance(outcome, Dataset)
        assert outcome.train.max() <= 1 and outcome.test.shape[1:] == (28, 28)
    return outcome


PREPARED = written(lambda path: write_npz(path, **BITS))


@cases(70)
@given(hostile(PREPARED))
def test_damaged_prepared_files(content):
    load_prepared(content)


@cases(70)
@given(st.data())
def test_prepared_files_with_any_array_in_them(data):
    """Right as an archive, wrong inside: headers of arrays are Python literals, nothing more."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(PREPARED)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(members)))
    members[name] = data.draw(st.one_of(hostile(members[name]), headers()))
    load_prepared(zipped(members, zipfile.ZIP_STORED))


def headers():
    """A .npy file with some header and hardly any data."""
    shapes = st.sampled_from(
        ["(2147483648, 28, 28)", "(2**40,)", "(-1, 28, 28)", "(4, 28, 28)", "()", "(1,)*10000"]
    )
    types = st.sampled_from(["|u1", "|O", "<f8", "|V9", "|S0", "<M8[s]", "nonsense", "|u1|"])
    texts = st.builds(
        lambda t, s: f"{{'descr': '{t}', 'fortran_order': False, 'shape': {s}, }}", types, shapes
    )
    odd = st.sampled_from(
        ["", "(" * 3000, "__import__('os').system('exit 1')", "{'descr': " * 500, "'''", "\0" * 99]
    )
    return st.one_of(texts, odd).map(_npy)


def _npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(64)


# --- What only looks small -------------------------------------------------------------------


def npy_of_zeros(mib: int) -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros((mib * MIB // PIXELS, 28, 28), np.uint8))
    return content.getvalue()


def lying_size() -> bytes:
    """An archive whose directory promises 2^32 - 2 bytes for a member of a few."""
    content = bytearray(zipped({"train.npy": npy_of_zeros(0)}, zipfile.ZIP_STORED))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 2**32 - 2)
    return bytes(content)


def overlapping(copies: int) -> bytes:
    """Every entry of the directory names the same compressed bytes."""
    content = zipped({"train.npy": npy_of_zeros(30)})
    directory, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    entry = content[directory:end]
    tail = bytearray(content[end:])
    struct.pack_into("<2HI", tail, 8, copies, copies, copies * len(entry))
    return content[:directory] + copies * entry + bytes(tail)


NPZ = {
    "150 MiB of zeros in 150 kB": lambda: zipped({"train.npy": npy_of_zeros(150)}),
    "70 MiB, xz": lambda: zipped({"train.npy": npy_of_zeros(70)}, zipfile.ZIP_LZMA),
    "70 MiB, bzip2": lambda: zipped({"train.npy": npy_of_zeros(70)}, zipfile.ZIP_BZIP2),
    "1,000 names for 30 MiB": lambda: overlapping(1000),
    "a size that is a lie": lying_size,
    "2^31 images in the header": lambda: zipped(
        {"train.npy": _npy("{'descr':'|u1','fortran_order':False,'shape':(2**31,28,28)}")}
    ),
    "2^62 pixels in the header": lambda: zipped(
        {"train.npy": _npy(f"{{'descr':'|u1','fortran_order':False,'shape':({2**62},)}}")}
    ),
    "pickled objects": lambda: zipped({"train.npy": object_array()}),
    "a pickle as a member": lambda: zipped({"train": PICKLE, "valid": PICKLE, "test": PICKLE}),
    "names that climb": lambda: zipped({"../../train.npy": b"", "/etc/train.npy": b""}),
    "links": lambda: link_member(),
    "5,000 members": lambda: zipped({f"{i}.npy": b"" for i in range(5000)}),
    "a password": lambda: encrypted(),
}


def object_array() -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Payload()], dtype=object), allow_pickle=True)
    return content.getvalue()


def link_member() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("train.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped({"train.npy": npy_of_zeros(0)}))
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize("name", NPZ)
def test_archives_that_are_traps(name):
    content = NPZ[name]()
    assert isinstance(load_prepared(content), VlaeError)
    assert isinstance(read_whole("lake_npz", content), VlaeError)


@pytest.mark.parametrize(
    "kind", [k for k, f in FORMATS.items() if f.own_files is None and k != "folder"]
)
@pytest.mark.parametrize("what", ["a folder", "a loop", "a hole of 1 TiB"])
def test_no_ordinary_file(tmp_path, kind, what):
    """By the command that reads raw files, which says so in one line too."""
    path = tmp_path / "data/raw/file"
    path.parent.mkdir(parents=True)
    if what == "a folder":
        path.mkdir()
    elif what == "a loop":
        path.symlink_to(path)
    else:
        path.touch()
        os.truncate(path, 2**40)
    pinned = {"path": "file", "sha256": "0" * 64, "bytes": 9, "urls": []}
    key = FORMATS[kind].needed[0]
    spec = {
        "files": {key: pinned},
        "splits": COUNTS,
        "format": kind,
        "kind": "binary",
        "binarization": "fixed",
    }
    outcome = attempt("data file, none", tmp_path, fetch, "tiny", spec, tmp_path)
    assert isinstance(outcome, VlaeError)


def test_foreign_files_are_refused_by_every_reader():
    for content in FOREIGN:
        for kind in READERS:
            assert isinstance(read_raw(kind, content), VlaeError)
        for kind in WHOLE:
            assert isinstance(read_whole(kind, content), VlaeError)
        assert isinstance(load_prepared(content), VlaeError)


# --- By command ------------------------------------------------------------------------------

DATASETS = yaml.safe_load((PROJECT / "params.yaml").read_text())["datasets"]
DATASETS = {name: spec for name, spec in DATASETS.items() if "files" in spec}


def tree(folder: Path) -> dict:
    """Everything below a folder, with the content of each file."""
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def write_examples(spec: dict, paths: dict[str, Path]) -> dict[str, int]:
    """Whole raw files of the data set; how many images they hold."""
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[spec["format"]].example(paths, spec)


@pytest.mark.parametrize("name", DATASETS)
def test_fetch_with_a_damaged_raw_file(tmp_path, monkeypatch, capfd, name):
    """The checksum is right, or it would not be read. Status 2, one line, nothing written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLAE_DATA_MIRROR", raising=False)
    small_params(tmp_path)
    params = yaml.safe_load(Path("params.yaml").read_text())
    spec = params["datasets"][name]
    raw = {key: Path("data/raw", file["path"]) for key, file in spec["files"].items()}
    spec["splits"] = write_examples(spec, raw)

    def fetch_command() -> int:
        for key, path in raw.items():
            content = path.read_bytes()
            pinned = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            spec["files"][key] = {"path": spec["files"][key]["path"], "urls": [], **pinned}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        return main(["fetch", name])

    assert fetch_command() == 0
    capfd.readouterr()
    last = list(raw.values())[-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    before = tree(Path("data"))
    assert fetch_command() == 2
    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    assert said.out == "" and line.startswith(f"vlae: error: {last}")
    assert tree(Path("data")) == before


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_command_with_a_damaged_prepared_file(tmp_path, monkeypatch, capfd, command):
    monkeypatch.chdir(tmp_path)
    small_params(tmp_path)
    path = Path("data/static_mnist.npz")
    write_npz(path, **made_up_arrays("fixed"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    grey = written(lambda file: write_npz(file, **made_up_arrays("dynamic")))
    for damage in (content, content[: len(content) // 2], b"", PICKLE, grey):
        path.write_bytes(damage)
        before = tree(tmp_path)
        assert main([command, "static_mnist-vlae"]) == 2
        said = capfd.readouterr()
        (line,) = said.err.splitlines()
        assert said.out == "" and line.startswith(f"vlae: error: {path} cannot be used: ")
        assert tree(tmp_path) == before
