"""Fetching from real servers that misbehave, and from mirrors; nothing is left of a failure."""

import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml

from http_server import (
    Server,
    body,
    endless,
    in_turn,
    raw,
    redirect,
    silent,
    status,
    together,
    trickle,
    truncated,
    unmarked,
)
from vlae.data.dataset import load
from vlae.data.fetch import MIRROR_VARIABLE, data_recipe, fetch, pins
from vlae.data.formats.amat import read_amat, write_amat
from vlae.data.formats.idx import write_idx
from vlae.data.formats.matlab import write_silhouettes
from vlae.data.formats.registry import FORMATS, _per_split
from vlae.errors import VlaeError
from vlae.images import DYNAMIC, FIXED, image_kind

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "src"
PARAMS = yaml.safe_load(REPOSITORY.joinpath("params.yaml").read_text())
COUNTS = {"train": 60, "valid": 3, "test": 4}
CIFAR10 = ("f203bdbacef1", "468987e657ac", "351444acf48b")
CIFAR10 += ("57355ac3303c", "66a6757151f8", "054edec1d021")
HTML = b"\n <!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


def images(split, high):
    draw = np.random.default_rng(len(split))
    return draw.integers(0, high, (COUNTS[split], 28, 28), np.uint8)


def make_set(folder, origin, suffix, write, arrays, **spec):
    """A data set with small files: its block of parameters and the content of each file."""
    files, contents = {}, {}
    for split, array in arrays.items():
        path = f"tiny/{split}{suffix}"
        write(folder / "scratch", array)
        contents[path] = (folder / "scratch").read_bytes()
        (folder / "scratch").unlink()
        files[split] = {
            "path": path,
            "sha256": hashlib.sha256(contents[path]).hexdigest(),
            "bytes": len(contents[path]),
            "urls": [f"{origin}/{path}"],
        }
    return {"files": files, "splits": COUNTS, **spec}, contents


@pytest.fixture
def tiny(tmp_path, server):
    """A fixed binarization in three amat files; the server has all of them as they should be."""
    arrays = {split: images(split, 2) for split in COUNTS}
    spec, contents = make_set(
        tmp_path,
        server.url,
        ".amat",
        write_amat,
        arrays,
        kind="binary",
        binarization="fixed",
        format="amat",
    )
    server.routes = {f"/{path}": body(content) for path, content in contents.items()}
    return spec, contents, arrays


@pytest.fixture
def grey(tmp_path, server):
    """Grey values in two idx files, the last 3 training images being the validation set."""
    arrays = {split: images(split, 256) for split in COUNTS}
    stored = {
        "train": np.concatenate([arrays["train"], arrays["valid"]]),
        "test": arrays["test"],
    }
    spec, contents = make_set(
        tmp_path,
        server.url,
        ".gz",
        write_idx,
        stored,
        kind="binary",
        binarization="dynamic",
        format="idx",
    )
    server.routes = {f"/{path}": body(content) for path, content in contents.items()}
    return spec, contents, arrays


TRAIN = "tiny/train.amat"


def get(spec, root, mirror=None, **limits):
    return fetch(
        "tiny", spec, root, mirror, **{"timeout": 5.0, "tries": 3, "pause": 0.01} | limits
    )


def tree(root):
    """Everything below a folder, with the content of each file."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def fails(spec, root, mirror=None, **limits):
    """The one line that a failing fetch says, once it is sure that nothing was changed."""
    before = tree(root)
    with pytest.raises(VlaeError) as caught:
        get(spec, root, mirror, **limits)
    assert tree(root) == before
    text = str(caught.value)
    assert "\n" not in text
    return text


def succeeded(root, contents, arrays):
    """Exactly the raw files and the prepared one are there, as they should be."""
    prepared = (root / "data/tiny.npz").read_bytes()
    expected = {f"data/raw/{path}": content for path, content in contents.items()}
    folders = dict.fromkeys(["data", "data/raw", "data/raw/tiny"])
    assert tree(root) == expected | folders | {"data/tiny.npz": prepared}
    assert np.load(root / "data/tiny.npz").files == ["train", "valid", "test"]
    dataset = load("tiny", FIXED if arrays["train"].max() == 1 else DYNAMIC, root / "data")
    for split, array in arrays.items():
        assert np.array_equal(getattr(dataset, split), array)


# From the origins


def test_origin(tiny, root, server, capfd):
    spec, contents, arrays = tiny
    assert get(spec, root) == root / "data/tiny.npz"
    succeeded(root, contents, arrays)
    first = tree(root)
    assert get(spec, root) and tree(root) == first
    assert set(server.asked.values()) == {1}  # the second time without the network
    assert capfd.readouterr() == ("", "")  # nothing to say, and no progress bar in a log


def test_files_have_the_usual_mode(tiny, root):
    get(tiny[0], root)
    for path in root.rglob("*.*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_validation_set_is_the_end_of_the_training_file(grey, root):
    spec, contents, arrays = grey
    get(spec, root)
    succeeded(root, contents, arrays)


def damaged(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def zipped(content):
    return gzip.compress(content, 1)


def dictionary_of_4_gib(content):
    """The same xz file, whose header asks for that to unpack it with."""
    size = 4 * (content[12] + 1)  # of the first block's header, behind that of the stream
    block = bytearray(content[12 : 12 + size])
    assert block[2:4] == b"\x21\x01"  # LZMA2, with one byte of settings
    block[4] = 40
    block[-4:] = struct.pack("<I", zlib.crc32(block[:-4]))
    return content[:12] + bytes(block) + content[12 + size :]


WRONG = {
    "wrong byte": (lambda c: body(damaged(c)), "right size, wrong sha256", 1),
    "truncated": (truncated, "the connection broke off", 3),
    "truncated, no length": (lambda c: unmarked(c[:5000]), "only 5,000 of 94,080 bytes", 3),
    "shorter": (lambda c: body(c[:-1]), "only 94,079 of 94,080 bytes", 1),
    "longer": (lambda c: body(c + b"\n"), "more than the 94,080 bytes of the file", 1),
    "empty": (lambda c: body(b""), "only 0 of 94,080 bytes", 1),
    "one byte": (lambda c: body(b"\x1f"), "only 0 of 94,080 bytes", 1),
    "html": (lambda c: body(HTML), "an HTML page instead of the file", 1),
    "large html": (lambda c: endless(HTML), "an HTML page instead of the file", 1),
    "html by its type": (
        lambda c: body(b"<!-- -->", Content_Type="text/html; charset=utf-8"),
        "an HTML page instead of the file",
        1,
    ),
    "404": (lambda c: status(404), "HTTP 404 Not Found", 1),
    "401": (lambda c: status(401), "HTTP 401 Unauthorized", 1),
    "500": (lambda c: status(500), "HTTP 500 Internal Server Error", 3),
    "unknown status": (lambda c: status(599), "HTTP 599", 3),
    "endless": (lambda c: endless(), "more than the 94,080 bytes of the file", 1),
    "redirects": (lambda c: redirect(f"/{TRAIN}"), "redirects without end", 1),
    "redirect to nowhere": (lambda c: redirect("ftp://host/x"), "not a usable URL", 1),
    "bad length": (
        lambda c: raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        "only 0 of 94,080 bytes",
        1,
    ),
    "two lengths": (
        lambda c: raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        "invalid answer (InvalidHeader)",
        1,
    ),
    "not HTTP": (lambda c: raw(b"220 ftp\r\n"), "the connection failed (BadStatusLine)", 3),
    "hangs up": (lambda c: raw(b""), "the connection failed (RemoteDisconnected)", 3),
    "damaged gzip": (lambda c: body(damaged(gzip.compress(c, 0))), "a damaged gzip file", 1),
    "truncated gzip": (lambda c: body(zipped(c)[:999]), " of 94,080 bytes", 1),
    "gzip bomb": (lambda c: body(zipped(c + bytes(9**7))), "more than the 94,080 bytes", 1),
    "endless empty gzip": (
        lambda c: endless(piece=gzip.compress(b"")),
        "the gzip file is larger than its content should be",
        1,
    ),
    "damaged xz": (lambda c: body(damaged(lzma.compress(c))), "a damaged xz file", 1),
    "truncated xz": (lambda c: body(lzma.compress(c)[:999]), " of 94,080 bytes", 1),
    "xz bomb": (lambda c: body(lzma.compress(c + bytes(9**8))), "more than the 94,080 bytes", 1),
    "endless empty xz": (
        lambda c: endless(piece=lzma.compress(b"")),
        "the xz file is larger than its content should be",
        1,
    ),
    "xz with a dictionary of 4 GiB": (
        lambda c: body(dictionary_of_4_gib(lzma.compress(c))),
        "a damaged xz file",
        1,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers(tiny, root, server, case):
    spec, contents, _ = tiny
    answer, reason, asked = WRONG[case]
    server.routes[f"/{TRAIN}"] = answer(contents[TRAIN])
    line = fails(spec, root)
    sha256 = spec["files"]["train"]["sha256"][:12]
    assert line.startswith(f"tiny: cannot get {TRAIN} (sha256 {sha256}...): ")
    assert f"{server.url}/{TRAIN}: " in line and reason in line
    assert f"Put the file at {root}/data/raw/{TRAIN}, or set VLAE_DATA_MIRROR" in line
    if case != "redirects":
        assert server.asked[f"/{TRAIN}"] == asked


def test_what_passes_is_tried_again(tiny, root, server):
    spec, contents, arrays = tiny
    server.routes[f"/{TRAIN}"] = in_turn(
        status(500), truncated(contents[TRAIN]), body(contents[TRAIN])
    )
    start = time.monotonic()
    get(spec, root, pause=0.1)
    assert time.monotonic() - start > 0.1 + 0.2
    succeeded(root, contents, arrays)
    assert server.asked[f"/{TRAIN}"] == 3


def test_next_origin(tiny, root, server, capfd):
    spec, contents, arrays = tiny
    spec["files"]["train"]["urls"] = [
        f"{server.url}/nothing",
        f"{server.url}/page",
        f"{server.url}/{TRAIN}",
    ]
    server.routes["/page"] = body(HTML)
    get(spec, root)
    succeeded(root, contents, arrays)


def test_every_source_is_named(tiny, root, server, tmp_path):
    spec, _, _ = tiny
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    urls = [f"{server.url}/nothing", f"{server.url}/page", dead, "http://nowhere.invalid/x"]
    spec["files"]["train"]["urls"] = [*urls, "http://[", "s3://bucket/x", f"file://{tmp_path}/y"]
    server.routes["/page"] = body(HTML)
    line = fails(spec, root, str(tmp_path), pause=0)
    assert (
        f"mirror {tmp_path}: {TRAIN}: no such file, {TRAIN}.gz: no such file, {TRAIN}.xz: " in line
    )
    assert (
        f"; {urls[0]}: HTTP 404 Not Found; {urls[1]}: an HTML page instead of the file; " in line
    )
    assert f"; {dead}: Connection refused; {urls[3]}: " in line
    assert "; http://[: not a usable URL; s3://bucket/x: not an http, https or file URL; " in line
    assert f"; file://{tmp_path}/y: no such file. Put the file at " in line


@pytest.mark.parametrize("answer", [lambda c: trickle(c, 0.05), lambda c: silent()])
def test_time_limit(tiny, root, server, answer):
    spec, contents, _ = tiny
    server.routes[f"/{TRAIN}"] = answer(contents[TRAIN])
    start = time.monotonic()
    assert "silent or too slow, less than 64 KiB in 0.3 s" in fails(
        spec, root, timeout=0.3, tries=2
    )
    assert 0.6 < time.monotonic() - start < 4
    assert server.asked[f"/{TRAIN}"] == 2


def test_endless_body_of_a_redirect_is_not_read(tiny, root, server):
    spec, contents, arrays = tiny
    server.routes[f"/{TRAIN}"] = endless(code=302, Location="/elsewhere")
    server.routes["/elsewhere"] = body(contents[TRAIN])
    get(spec, root, tries=1)
    succeeded(root, contents, arrays)


# What is there already


def test_wrong_raw_file_is_replaced_by_a_right_one_only(tiny, root, server, capfd):
    spec, contents, arrays = tiny
    get(spec, root)
    (root / "data/raw" / TRAIN).write_bytes(damaged(contents[TRAIN]))
    answer = server.routes[f"/{TRAIN}"]
    server.routes[f"/{TRAIN}"] = status(404)
    fails(spec, root)
    assert "train.amat has a wrong sha256 (" in capfd.readouterr().err
    server.routes[f"/{TRAIN}"] = answer
    get(spec, root)
    succeeded(root, contents, arrays)
    assert server.asked["/tiny/test.amat"] == 1


def test_whole_files_stay_when_another_one_fails(tiny, root, server):
    spec, contents, arrays = tiny
    answer = server.routes["/tiny/test.amat"]
    server.routes["/tiny/test.amat"] = status(404)
    with pytest.raises(VlaeError):
        get(spec, root)
    assert set(tree(root)) == {
        "data",
        "data/raw",
        "data/raw/tiny",
        "data/raw/tiny/train.amat",
        "data/raw/tiny/valid.amat",
    }
    server.routes["/tiny/test.amat"] = answer
    get(spec, root)
    succeeded(root, contents, arrays)
    assert server.asked[f"/{TRAIN}"] == 1


def test_right_file_with_other_content_than_told(tiny, root):
    """The sha256 is right, but the parameters promise other images: no prepared file."""
    spec, _, _ = tiny
    get(spec, root)
    other = spec | {"splits": COUNTS | {"valid": 2}}
    assert fails(other, root) == f"{root}/data/raw/tiny/valid.amat: more than the 2 lines expected"
    other = spec | {"format": "idx"}
    assert "train.amat: not in idx format" in fails(other, root)


def test_grey_values_are_no_fixed_binarization(grey, root):
    spec = grey[0] | {"binarization": "fixed"}
    with pytest.raises(VlaeError, match="tiny: train has the value 255, so it is not binarized"):
        get(spec, root)
    assert not (root / "data/tiny.npz").exists()


def test_read_only_cache_link_is_replaced_and_not_written_through(tiny, root, tmp_path):
    """DVC may have put a link to its cache where the prepared file goes."""
    cached = tmp_path / "cached"
    cached.write_bytes(b"precious")
    cached.chmod(0o444)
    (root / "data").mkdir()
    (root / "data/tiny.npz").symlink_to(cached)
    get(tiny[0], root)
    assert cached.read_bytes() == b"precious" and not (root / "data/tiny.npz").is_symlink()


def test_places_that_cannot_be_written(tiny, root):
    spec, _, _ = tiny
    (root / "data").write_bytes(b"a file")
    raw = f"{root}/data/raw/{TRAIN}"
    assert fails(spec, root) == f"{raw} cannot be written: Not a directory"
    (root / "data").unlink()
    (root / "data/raw" / TRAIN).mkdir(parents=True)
    assert fails(spec, root) == f"{raw} cannot be written: Is a directory"


def test_raw_file_that_cannot_be_read(tiny, root, monkeypatch):
    spec, _, _ = tiny
    get(spec, root)

    def refuse(path, _):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("vlae.data.fetch.wrong_sum", refuse)  # modes do not keep root from reading
    assert fails(spec, root) == f"tiny: cannot read {root}/data/raw/{TRAIN}: Permission denied"


def test_full_disk(tiny, root):
    """A limit on the size of files stands in for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        line = fails(tiny[0], root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line.startswith(f"cannot write {root}/data/raw/tiny/")
    assert line.endswith(": File too large")


FETCH = """
import json, sys
from pathlib import Path
from vlae.data.fetch import fetch
fetch("tiny", json.loads(sys.argv[1]), Path(sys.argv[2]), tries=1)
"""


def test_two_processes_at_once(tiny, root, server):
    spec, contents, arrays = tiny
    server.routes[f"/{TRAIN}"] = together(2, body(contents[TRAIN]))
    command = [sys.executable, "-c", FETCH, json.dumps(spec), str(root)]
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    both = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(p.communicate(timeout=30)[1], p.returncode) for p in both] == [("", 0)] * 2
    succeeded(root, contents, arrays)


# From mirrors


def put(folder, files):
    for path, content in files.items():
        folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(path).write_bytes(content)


LAYOUTS = {
    "path": lambda path, content: (path, content),
    "basename": lambda path, content: (path.rpartition("/")[2], content),
    "path.xz": lambda path, content: (f"{path}.xz", lzma.compress(content)),
    "xz of two": lambda path, c: (f"{path}.xz", b"".join(map(lzma.compress, (c[:99], c[99:])))),
    "xz, not named so": lambda path, content: (path, lzma.compress(content)),
    "path.gz": lambda path, content: (f"{path}.gz", zipped(content)),
    "basename.gz": lambda path, content: (path.rpartition("/")[2] + ".gz", zipped(content)),
    "gz of two": lambda path, c: (f"{path}.gz", zipped(c[:4321]) + zipped(c[4321:])),
    "gz, not named so": lambda path, content: (path, zipped(content)),
    "not gz, named so": lambda path, content: (f"{path}.gz", content),
}


def laid_out(layout, contents):
    return dict(LAYOUTS[layout](path, content) for path, content in contents.items())


@pytest.mark.parametrize("kind", ["folder", "relative", "file URL", "http URL", "http URL/"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mirror(tiny, root, server, tmp_path, monkeypatch, capfd, kind, layout):
    spec, contents, arrays = tiny
    files = laid_out(layout, contents)
    server.routes = {f"/a%20mirror/{path}": body(content) for path, content in files.items()}
    put(tmp_path / "a mirror", files)
    monkeypatch.chdir(tmp_path)
    mirror = {
        "folder": str(tmp_path / "a mirror"),
        "relative": "a mirror",
        "file URL": f"file://{tmp_path}/a%20mirror",
        "http URL": f"{server.url}/a%20mirror",
        "http URL/": f"{server.url}/a%20mirror/",
    }[kind]
    get(spec, root, mirror)
    succeeded(root, contents, arrays)
    assert not server.asked[f"/{TRAIN}"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_gzip_declared_as_an_encoding(tiny, grey, root, tmp_path, server, encoding):
    """Servers label .gz files so; requests would unpack them, and the sha256 be another."""
    for spec, contents, arrays in (tiny, grey):
        server.routes = {
            f"/{path}": body(
                content if path.endswith(".gz") else zipped(content), Content_Encoding=encoding
            )
            for path, content in contents.items()
        }
        folder = root / spec["format"]
        get(spec, folder)
        succeeded(folder, contents, arrays)


def test_a_folder_does_without_what_the_network_needs(tiny, root, tmp_path, monkeypatch):
    """A machine of a cluster may have no more than training needs."""
    spec, contents, arrays = tiny
    put(tmp_path / "mirror", contents)
    for module in ("requests", "truststore", "urllib3"):
        monkeypatch.setitem(sys.modules, module, None)
    get(spec, root, str(tmp_path / "mirror"))
    succeeded(root, contents, arrays)


def test_mirror_of_a_gz_file_serves_it_as_it_is(grey, root, tmp_path):
    spec, contents, arrays = grey
    put(tmp_path / "mirror", contents)
    get(spec, root, str(tmp_path / "mirror"))
    succeeded(root, contents, arrays)


# How people have MNIST's files; `name` is train-images-idx3-ubyte.
LEFT_BY = {
    "gunzip": lambda name, content: (name, content),
    "torchvision": lambda name, content: (f"tiny/{name}", content),
    "an archive of Kaggle's": lambda name, content: (name.replace("-idx", ".idx"), content),
    "another gzip": lambda name, content: (f"{name}.gz", gzip.compress(content, 9)),
    "a gzip with a name in it": lambda name, content: (f"{name}.gz", named(content)),
    "xz": lambda name, content: (f"{name}.xz", lzma.compress(content)),
}


def named(content):
    packed = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=packed, mtime=99) as file:
        file.write(content)
    return packed.getvalue()


@pytest.fixture
def unpacked(tmp_path):
    """Grey values in two idx files that are pinned by their images, as MNIST's are."""
    arrays = {split: images(split, 256) for split in COUNTS}
    stored = {"train": np.concatenate([arrays["train"], arrays["valid"]]), "test": arrays["test"]}
    options = {"kind": "binary", "binarization": "dynamic", "format": "idx"}
    suffix = "-images-idx3-ubyte"
    spec, contents = make_set(tmp_path, "", suffix, write_plain_idx, stored, **options)
    for file in spec["files"].values():
        file["urls"] = []
    return spec, contents, arrays


def write_plain_idx(path, images):
    write_idx(path, images)
    path.write_bytes(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("place", ["mirror", "data/raw"])
@pytest.mark.parametrize("how", LEFT_BY)
def test_the_same_images_however_they_are_packed(unpacked, root, tmp_path, capfd, how, place):
    spec, contents, arrays = unpacked
    for path, content in contents.items():
        name, found = LEFT_BY[how](path.removeprefix("tiny/"), content)
        if place == "mirror":
            put(tmp_path / "mirror", {name: found})
        elif ".idx" not in name:  # there it has the name that params.yaml says
            put(root / "data" / "raw", {f"tiny/{Path(name).name}": found})
        else:
            return
    get(spec, root, str(tmp_path / "mirror") if place == "mirror" else None)
    dataset = load("tiny", DYNAMIC, root / "data")
    assert all(np.array_equal(getattr(dataset, split), array) for split, array in arrays.items())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", LEFT_BY)
def test_other_images_are_refused_however_they_are_packed(unpacked, root, tmp_path, how):
    spec, contents, _ = unpacked
    files = (LEFT_BY[how](path.removeprefix("tiny/"), damaged(c)) for path, c in contents.items())
    put(tmp_path / "mirror", dict(files))
    assert "right size, wrong sha256" in fails(spec, root, str(tmp_path / "mirror"))


def test_a_damaged_file_beside_its_place_is_passed_over_aloud(tiny, root, capfd):
    spec, contents, arrays = tiny
    beside = root / "data" / "raw" / f"{TRAIN}.gz"
    put(root / "data" / "raw", {f"{TRAIN}.gz": zipped(contents[TRAIN])[:-50]})
    get(spec, root)
    assert f"tiny: {beside} is not used: only " in capfd.readouterr().err
    beside.unlink()
    succeeded(root, contents, arrays)


def test_mnist_is_known_by_its_images_in_params_and_as_published_in_recipes():
    """So that results of before stay those of the same data."""
    files = PARAMS["datasets"]["dynamic_mnist"]["files"]
    assert files["train"]["bytes"] == 16 + 60_000 * 784
    recorded = json.loads((REPOSITORY / "results/recipes/dynamic_mnist.data.json").read_text())
    assert pins(PARAMS["datasets"]["dynamic_mnist"])["files"] == recorded["files"]


def test_mirror_without_the_file_is_passed_over_in_silence(tiny, root, tmp_path, server, capfd):
    spec, contents, arrays = tiny
    (tmp_path / "mirror").mkdir()
    get(spec, root, str(tmp_path / "mirror"))
    get(spec, root / "other", f"{server.url}/nothing")
    succeeded(root / "other", contents, arrays)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_mirror_with_wrong_bytes_is_reported(tiny, root, tmp_path, server, capfd, kind):
    spec, contents, arrays = tiny
    wrong = {path: damaged(content) for path, content in contents.items()}
    put(tmp_path / "mirror", wrong)
    server.routes |= {f"/mirror/{path}": body(content) for path, content in wrong.items()}
    mirror = str(tmp_path / "mirror") if kind == "folder" else f"{server.url}/mirror"
    get(spec, root, mirror)
    succeeded(root, contents, arrays)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == (
        f"vlae: warning: tiny: mirror {mirror}: {TRAIN}: right size, wrong sha256; "
        "trying the origins"
    )
    assert len(lines) == 3


def test_short_file_in_a_folder_is_not_waited_for(tiny, root, tmp_path, capfd):
    spec, contents, arrays = tiny
    put(tmp_path, {path: content[:-9] for path, content in contents.items()})
    start = time.monotonic()
    get(spec, root, str(tmp_path), pause=5)
    assert time.monotonic() - start < 5
    succeeded(root, contents, arrays)
    assert f"{TRAIN}: only 94,071 of 94,080 bytes; trying" in capfd.readouterr().err


def test_wrong_bytes_do_not_hide_the_right_ones(tiny, root, tmp_path, capfd):
    spec, contents, arrays = tiny
    put(tmp_path, {path: HTML for path in contents})
    put(tmp_path, laid_out("path.gz", contents))
    get(spec, root, str(tmp_path))
    succeeded(root, contents, arrays)
    assert capfd.readouterr().err == ""


def test_dead_mirror_is_asked_once_a_file_and_without_showing_a_password(tiny, root, capfd):
    spec, contents, arrays = tiny
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    get(spec, root, f"http://user:secret@{dead}", tries=1)
    succeeded(root, contents, arrays)
    error = capfd.readouterr().err
    assert error.startswith(
        f"vlae: warning: tiny: mirror http://{dead}: {TRAIN}: Connection refused; trying"
    )
    assert "secret" not in error and error.count("refused") == len(contents)


@pytest.mark.parametrize("mirror", ["/no/such/folder", "file:///no/such/folder", "no such"])
def test_mirror_that_does_not_exist(tiny, root, server, mirror):
    line = fails(tiny[0], root, mirror)
    assert line.startswith(f"VLAE_DATA_MIRROR={mirror}: there is no such folder; ")
    assert not server.asked  # the origins are not what was wanted


def test_mirror_of_an_unknown_kind(tiny, root):
    line = fails(tiny[0], root, "s3://key:secret@bucket")
    assert line.startswith("VLAE_DATA_MIRROR=s3://bucket is neither a folder nor a file, http")


def test_empty_mirror_is_none(tiny, root):
    get(tiny[0], root, "")


# Files that are pinned by other checksums than sha256


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def by_md5(tmp_path, server):
    """All splits in one file, whose sha256 and size are not known."""
    arrays = {split: images(split, 2) for split in COUNTS}
    write_silhouettes(tmp_path / "all.mat", arrays)
    content = (tmp_path / "all.mat").read_bytes()
    pinned = {"md5": hashlib.md5(content).hexdigest(), "git_blob": git_blob(content)}
    urls = [f"{server.url}/one", f"{server.url}/two"]
    file = {"path": "tiny/all.mat", **pinned, "max_bytes": 50_000, "urls": urls}
    spec = {"files": {"all": file}, "splits": COUNTS, "kind": "binary", "binarization": "fixed"}
    server.routes = {"/one": body(content), "/two": body(content)}
    return spec | {"format": "silhouettes_mat"}, {"tiny/all.mat": content}, arrays


def test_both_checksums_agree(by_md5, root, server):
    spec, contents, arrays = by_md5
    get(spec, root)
    succeeded(root, contents, arrays)
    get(spec, root)
    assert server.asked == {"/one": 1}


@pytest.mark.parametrize("kind", ["md5", "git_blob"])
def test_one_checksum_is_not_enough(by_md5, root, server, kind):
    spec, contents, _ = by_md5
    (content,) = contents.values()
    file = spec["files"]["all"]
    file[kind] = file[kind][::-1]
    line = fails(spec, root)
    assert f"tiny/all.mat (md5 {file['md5'][:12]}... and git_blob {file['git_blob'][:12]}...)" in (
        line
    )
    assert line.count(f"{len(content):,} bytes with a wrong {kind}") == 2  # both were asked
    assert server.asked == {"/one": 1, "/two": 1}


def test_what_else_is_served_for_a_file_of_unknown_size(by_md5, root, server):
    spec, contents, arrays = by_md5
    (content,) = contents.values()
    answers = {
        "an HTML page instead of the file": body(HTML),
        "more than the 50,000 bytes of the file": endless(),
        f"{len(content):,} bytes with a wrong md5": body(damaged(content)),
        "999 bytes with a wrong md5": body(content[:999]),
    }
    for reason, answer in answers.items():
        server.routes |= {"/one": answer, "/two": status(404)}
        assert f"{server.url}/one: {reason}; {server.url}/two: HTTP 404" in fails(spec, root)
    server.routes["/two"] = body(content)
    get(spec, root)  # the right one is still found after a wrong one
    succeeded(root, contents, arrays)


def test_a_file_without_an_address(by_md5, root, tmp_path):
    spec, contents, arrays = by_md5
    spec["files"]["all"]["urls"] = []
    assert "): it has no public address. Put the file at " in fails(spec, root)
    put(tmp_path / "mirror", contents)
    get(spec, root, str(tmp_path / "mirror"))
    succeeded(root, contents, arrays)


# Either of two sets of files


@pytest.fixture
def either(tiny, tmp_path, server):
    """The three amat files at their origin, or at a mirror two idx files of the same images."""
    spec, own, arrays = tiny
    stored = {
        "train": np.concatenate([arrays["train"], arrays["valid"]]),
        "test": arrays["test"],
    }
    other, contents = make_set(tmp_path, "", ".gz", write_idx, stored, format="idx")
    files = {key: file | {"urls": []} for key, file in other["files"].items()}
    mirror = tmp_path / "mirror"
    put(mirror, contents)
    return (
        spec | {"alternative": {"format": "idx", "files": files}},
        own,
        contents,
        arrays,
        str(mirror),
    )


def test_alternative_files_of_a_mirror_give_the_same_data_set(either, root, server, capfd):
    spec, own, other, arrays, mirror = either
    get(spec, root, mirror)
    succeeded(root, other, arrays)
    prepared = (root / "data/tiny.npz").read_bytes()
    assert not server.asked
    get(spec, root)  # they are in data/raw now
    assert not server.asked
    for path in other:
        (root / "data/raw" / path).unlink()
    get(spec, root)
    succeeded(root, own, arrays)
    assert (root / "data/tiny.npz").read_bytes() == prepared
    get(spec, root, mirror)  # its own files are there, so nothing is asked for
    succeeded(root, own, arrays)
    assert capfd.readouterr().err == ""


def test_a_mirror_without_all_alternative_files_is_passed_over(either, root, capfd):
    spec, own, other, arrays, mirror = either
    Path(mirror, "tiny/test.gz").unlink()
    get(spec, root, mirror)
    succeeded(root, own | {"tiny/train.gz": other["tiny/train.gz"]}, arrays)
    assert capfd.readouterr().err == ""


def test_wrong_alternative_files_are_not_taken(either, root, capfd):
    spec, own, other, arrays, mirror = either
    put(Path(mirror), {"tiny/train.gz": damaged(other["tiny/train.gz"])})
    get(spec, root, mirror)
    succeeded(root, own, arrays)
    assert "right size, wrong sha256" in capfd.readouterr().err


def test_neither_set_of_files_can_be_had(either, root, server, tmp_path):
    spec, *_ = either
    server.routes = {}
    tmp_path.joinpath("empty").mkdir()
    for mirror in (None, str(tmp_path / "empty")):
        line = fails(spec, root, mirror)
        assert line.startswith(f"tiny: cannot get {TRAIN} (sha256 ")
        assert line.endswith("that has it; tiny/train.gz, tiny/test.gz can be used instead")
    assert "there is no such folder" in fails(spec, root, str(tmp_path / "nothing"))


def test_the_recipe_has_both_sets_of_files(either):
    spec, *_ = either
    recipe = data_recipe("tiny", spec)
    alternative = recipe.pop("alternative")
    assert recipe == data_recipe("tiny", {k: v for k, v in spec.items() if k != "alternative"})
    assert alternative["format"] == "idx" and set(alternative["files"]) == {"train", "test"}
    assert set(alternative["sha256"]) == set(COUNTS)


# The recipe


def test_recipe_is_recorded_here():
    """A change of meaning in the preparation; if intended, the data sets are to be made anew."""
    assert {
        name: [h[:12] for h in data_recipe(name, PARAMS["datasets"][name])["sha256"].values()]
        for name in PARAMS["datasets"]
    } == {
        "static_mnist": ["1e5a4addbcf0", "61064bd2667a", "2e0cf939f99a"],
        "dynamic_mnist": ["e4e95484e859", "b276e5b01e42", "a96f9d90e622"],
        "omniglot": ["85e3f38c2f77", "2e79cd1e7a4f", "c4efd1a52e47"],
        "omniglot_rebuilt": ["07592ed9a06b", "94cf37e996f2", "70046a283e91"],
        "caltech101": ["9112d83b89c0", "4c570b7978ce", "119733155ffe"],
        "one_bit": ["03d3345f56ec", "539b98013dbd", "a4e091078791"],
        # images, then labels
        "cifar10": [*CIFAR10],
    }


def test_recipe_follows_the_preparation(monkeypatch):
    spec = PARAMS["datasets"]["static_mnist"]
    recipe = data_recipe("static_mnist", spec)
    assert recipe["dataset"] == "static_mnist" and set(recipe["sha256"]) == set(COUNTS)
    assert recipe == data_recipe("static_mnist", spec)
    turned = _per_split(lambda *a: read_amat(*a).transpose(0, 2, 1), write_amat)
    monkeypatch.setitem(FORMATS, "amat", turned)
    assert all(
        recipe["sha256"][split] != sha256
        for split, sha256 in data_recipe("static_mnist", spec)["sha256"].items()
    )


def test_recipe_has_all_that_a_file_is_pinned_by():
    spec = PARAMS["datasets"]["omniglot"]
    file = spec["files"]["all"]
    pinned = {kind: file[kind] for kind in ("md5", "git_blob")}
    assert data_recipe("omniglot", spec)["files"] == {"all": pinned}


def test_recipe_follows_what_is_pinned_and_not_where_it_lies():
    spec = PARAMS["datasets"]["dynamic_mnist"]
    recipe = data_recipe("dynamic_mnist", spec)
    elsewhere = {k: v | {"urls": []} for k, v in spec["files"].items()}
    assert data_recipe("dynamic_mnist", spec | {"title": "x", "files": elsewhere}) == recipe
    other = {k: v | {"sha256": "0" * 64} for k, v in spec["files"].items()}
    assert data_recipe("dynamic_mnist", spec | {"files": other}) != recipe
    splits = spec["splits"] | {"train": 59_000, "valid": 1000}
    assert data_recipe("dynamic_mnist", spec | {"splits": splits}) != recipe


# The real data sets


@pytest.mark.skipif(MIRROR_VARIABLE not in os.environ, reason=f"{MIRROR_VARIABLE} is not set")
@pytest.mark.parametrize(
    ("name", "scale", "counts", "means"),
    [
        ("static_mnist", 1, (50000, 10000, 10000), (0.130562, 0.131127, 0.132512)),
        ("dynamic_mnist", 255, (59600, 400, 10000), (0.130656, 0.131315, 0.132515)),
    ],
)
def test_real_files(tmp_path, name, scale, counts, means):
    spec = PARAMS["datasets"][name]
    fetch(name, spec, tmp_path, os.environ[MIRROR_VARIABLE])
    dataset = load(name, image_kind(spec), tmp_path / "data")
    splits = (dataset.train, dataset.valid, dataset.test)
    assert tuple(len(split) for split in splits) == counts
    assert tuple(round(split.mean() / scale, 6) for split in splits) == pytest.approx(
        means, abs=1e-6
    )
