"""Mirrors and origins that answer anything at all: told in seconds, and in little memory."""

import gzip
import hashlib
import json
import time

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import PICKLE, attempt, cases, damaged, empty_folder
from http_server import Server, body, endless, raw, redirect, status, trickle
from miniature import small_params
from vlae.cli import main
from vlae.data.fetch import fetch
from vlae.data.formats.amat import write_amat
from vlae.errors import VlaeError
from vlae.storage.write import sha256

COUNTS = {"train": 6, "valid": 2, "test": 2}
KIND = "server"


def made_files() -> tuple[dict, dict[str, bytes]]:
    files, contents = {}, {}
    with empty_folder() as folder:
        for split, count in COUNTS.items():
            write_amat(folder / split, np.ones((count, 28, 28), np.uint8))
            contents[split] = (folder / split).read_bytes()
            files[split] = {
                "path": f"{split}.amat",
                "sha256": sha256(folder / split),
                "bytes": len(contents[split]),
            }
    return files, contents


FILES, CONTENTS = made_files()
GOOD = CONTENTS["train"]


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        patch.setenv("NO_PROXY", "*")
        yield server


def ask(server, answer, mirror: bool = False):
    """Fetch a data set whose training file is answered like this."""
    server.routes = {f"/{split}.amat": body(content) for split, content in CONTENTS.items()}
    server.routes["/train.amat"] = server.routes["/train.amat.gz"] = answer
    urls = {} if mirror else {s: [f"{server.url}/{s}.amat"] for s in FILES}
    files = {split: file | {"urls": urls.get(split, [])} for split, file in FILES.items()}
    spec = {
        "files": files,
        "splits": COUNTS,
        "format": "amat",
        "kind": "binary",
        "binarization": "fixed",
    }
    with empty_folder() as folder:
        (folder / "outside").write_bytes(b"")
        root = folder / "root"
        root.mkdir()
        outcome = attempt(
            *(KIND, root, lambda: fetch("tiny", spec, root, server.url if mirror else None,
                                        timeout=1.0, tries=1, pause=0)),
        )  # fmt: skip
        assert sorted(path.name for path in folder.iterdir()) == ["outside", "root"]
        there = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        raw_files = {f"data/raw/{split}.amat" for split in FILES}
        if isinstance(outcome, VlaeError):
            assert there <= raw_files - {"data/raw/train.amat"}
        else:
            assert there == raw_files | {"data/tiny.npz"}
            content = (root / "data/raw/train.amat").read_bytes()
            assert hashlib.sha256(content).hexdigest() == FILES["train"]["sha256"]
    return outcome


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n" % len(GOOD)
HEADERS = [
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Content-Range: bytes 5-9/10",
    b"Content-Disposition: attachment; filename=../../outside",
    b"Content-Location: file:///etc/passwd",
    b"Location: file:///etc/passwd",
    b"Location: /train.amat",
    b"Location: http://[",
    b"Location: \xff\xfe",
    b"Set-Cookie: a=b; Domain=..",
    b"Retry-After: 99999999",
    b"no colon",
    b": no name",
    b"Connection: Upgrade",
]
STATUS = [b"200 OK", b"206 Partial", b"301 Moved", b"304 Not", b"407 Proxy", b"99999 X", b"abc"]
BODIES = [
    GOOD,
    b"",
    GOOD[:-1],
    b"5\r\n01 01\r\n0\r\n\r\n",
    b"ffffffffff\r\nx",
    gzip.compress(GOOD),
]


@cases(40)
@given(damaged(ANSWER + GOOD))
def test_damaged_answers(server, content):
    ask(server, raw(content))


@cases(80)
@given(
    st.sampled_from(STATUS),
    st.lists(st.sampled_from(HEADERS), max_size=3),
    st.sampled_from([*BODIES, PICKLE, b"<html></html>"]),
    st.booleans(),
)
def test_any_mixture_of_headers(server, first, headers, content, mirror):
    lines = b"\r\n".join([b"HTTP/1.1 " + first, *headers])
    ask(server, raw(lines + b"\r\n\r\n" + content), mirror)


def answering(start: bytes, piece: bytes):
    """Bytes without end, or for longer than anyone waits: a reader that is given up reads on."""

    def answer(request):
        request.wfile.write(start)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            request.wfile.write(piece)

    return answer


def next_redirect():
    number = iter(range(10**9))

    def answer(request):
        redirect(f"/train.amat?{next(number)}")(request)

    return answer


HEAD = b"HTTP/1.1 200 OK\r\n"
TRAPS = {
    "redirects in a circle": redirect("/train.amat"),
    "a new redirect every time": next_redirect(),
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to another port": redirect("http://127.0.0.1:1/"),
    "a redirect of a megabyte": redirect("/" + "x" * 60_000),
    "endless": endless(),
    "endless zeros": endless(piece=bytes(65536)),
    "endless headers": answering(HEAD, b"X: y\r\n"),
    "one endless header": answering(HEAD + b"X: ", b"y" * 65536),
    "an endless first line": answering(b"", b"HTTP" * 9999),
    "continue, without end": answering(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
    "endless chunks": answering(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n01 01\r\n" * 999
    ),
    "a chunk of 2^63 bytes": raw(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n" + bytes(99)
    ),
    "an endless chunk length": answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 999),
    "a gzip bomb": body(gzip.compress(GOOD + bytes(150 * 2**20), 1)),
    "a gzip bomb as an encoding": body(
        gzip.compress(bytes(150 * 2**20), 1), Content_Encoding="gzip"
    ),
    "a gzip without end": endless(piece=gzip.compress(b"")),
    "a gzip in itself": body(gzip.compress(gzip.compress(GOOD))),
    "1 EiB announced": body(GOOD, Content_Length=str(2**60)),
    "shorter than announced": body(GOOD[:99], Content_Length=str(len(GOOD))),
    "a byte a moment": trickle(GOOD, 0.1),
    "silence": lambda request: time.sleep(3),
    "no such status": status(999),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_answers_that_are_traps(server, name):
    assert isinstance(ask(server, TRAPS[name]), VlaeError)


def test_the_right_answer_is_taken(server):
    assert not isinstance(ask(server, raw(ANSWER + GOOD)), VlaeError)


def test_the_command_ends_with_2_and_one_line(server, tmp_path, monkeypatch, capfd):
    """The real params.yaml from a mirror that answers with an endless body for everything."""
    small_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load((tmp_path / "params.yaml").read_text())
    for file in tree["datasets"]["caltech101"]["files"].values():
        file["urls"] = []
    (tmp_path / "params.yaml").write_text(json.dumps(tree))
    server.routes = {}
    monkeypatch.setenv("VLAE_DATA_MIRROR", f"{server.url}/mirror")
    path = tree["datasets"]["caltech101"]["files"]["all"]["path"]
    server.routes[f"/mirror/{path}"] = endless()
    assert main(["fetch", "caltech101"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("vlae: warning: caltech101: mirror ")
    assert lines[1].startswith("vlae: error: caltech101: cannot get ")
