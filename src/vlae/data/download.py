"""Downloads one file from one place, and accepts it by its checksums only.

A download stops when it exceeds the pinned size or when the server sends too slowly. A file packed
by gzip or xz is unpacked on the way. Failures are described in a few words.
"""

import hashlib
import lzma
import os.path
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.request import url2pathname

from vlae.data.failure import BROKEN, MISSING, PASSING, WRONG, Failure
from vlae.data.http import CHUNK, is_http, receive, slow
from vlae.errors import VlaeError

XZ_MEMORY = 2**28  # bytes that unpacking may use; files of `xz -9` need a quarter of it
HTML = (b"<!doctype", b"<html", b"<head", b"<body", b"<title")

SUMS = ("sha256", "md5", "git_blob")  # kinds of checksums that may pin a file


def download(
    source: str, file: dict, target: Path, *, timeout: float, tries: int, pause: float
) -> None:
    """Download `file` from `source` to `target`, and check it.

    file: an entry of `files` in params.yaml. `path` is its name. It pins the checksum `sha256`
        or, if that was never published, both `md5` and `git_blob`. `bytes` is the size, or
        `max_bytes` an upper limit of it.
    source: an http(s) or file URL, or a path. It may serve the file itself. Unless the name of
        the file ends in .gz or .xz, it may also serve the file packed by gzip or xz.
    timeout: seconds that a server has for every 64 KiB.
    tries, pause: temporary failures are tried again, `tries` times in all, after pauses of 1, 2,
        3, ... times `pause` seconds.

    Raises Failure if the file cannot be had from `source`, and VlaeError if `target` cannot be
    written.
    """
    for attempt in range(1, tries + 1):
        try:
            return _attempt(source, file, target, timeout)
        except Failure as failure:
            if failure.kind not in PASSING or attempt == tries or not is_http(source):
                raise
        time.sleep(attempt * pause)


def _attempt(source: str, file: dict, target: Path, timeout: float) -> None:
    from tqdm import tqdm

    bar = tqdm(
        desc=PurePosixPath(file["path"]).name,
        total=file.get("bytes"),
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,  # unless standard error is a terminal
    )
    with open(target, "wb") as opened, bar:
        unpack = not file["path"].endswith(tuple(PACKERS))
        sink = Sink(opened, file, unpack, progress=bar.update)
        if is_http(source):
            _within(timeout, sink, lambda: receive(source, sink, timeout))
        else:
            _copy(source, sink)
    if wrong := wrong_sum(target, file):
        raise sink.mismatch(wrong[0])


def wrong_sum(path: Path, file: dict) -> tuple[str, str] | None:
    """Return the kind and value of the first checksum of `path` that is not as pinned.

    Returns None if all are right. If the size is wrong, returns that without reading the file.
    """
    size = path.stat().st_size
    if size != file.get("bytes", size) or size > file.get("max_bytes", size):
        return "size", f"{size:,}"
    for kind in SUMS:
        if kind in file and (found := _sum(path, kind)) != file[kind]:
            return kind, found
    return None


def pin(file: dict) -> str:
    """Return the checksums that pin a file, for messages."""
    return " and ".join(f"{kind} {file[kind][:12]}..." for kind in SUMS if kind in file)


def _sum(path: Path, kind: str) -> str:
    if kind == "sha256":
        digest = hashlib.sha256()
    elif kind == "md5":
        digest = hashlib.md5(usedforsecurity=False)
    else:  # the name that git gives to this content
        size = path.stat().st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, lambda: digest).hexdigest()


class Gzip:
    """Unpacks a gzip file of any number of parts, piece by piece."""

    NAME, MAGIC = "gzip", b"\x1f\x8b"

    def __init__(self) -> None:
        self.part = zlib.decompressobj(wbits=31)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Unpack the next bytes, in pieces of at most CHUNK. Raises zlib.error."""
        while packed:
            if self.part.eof:
                self.part = zlib.decompressobj(wbits=31)
            yield self.part.decompress(packed, CHUNK)
            packed = self.part.unconsumed_tail or self.part.unused_data


class Xz:
    """Unpacks an xz file of any number of streams, piece by piece."""

    NAME, MAGIC = "xz", b"\xfd7zXZ\0"

    def __init__(self) -> None:
        self.stream = self._next_stream()

    def _next_stream(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Unpack the next bytes, in pieces of at most CHUNK. Raises LZMAError."""
        while packed or not (self.stream.eof or self.stream.needs_input):
            if self.stream.eof:
                self.stream = self._next_stream()
            yield self.stream.decompress(packed, CHUNK)
            packed = self.stream.unused_data


PACKERS: dict[str, type[Gzip] | type[Xz]] = {".gz": Gzip, ".xz": Xz}  # by file name extension


class Sink:
    """Writes a download to a file: unpacks it, and refuses more bytes than `pinned` allows."""

    def __init__(
        self, file: BinaryIO, pinned: dict, unpack: bool, progress: Callable[[int], object]
    ) -> None:
        self.file, self.progress = file, progress
        self.exact = "bytes" in pinned  # otherwise only an upper limit is known
        self.size = pinned["bytes"] if self.exact else pinned["max_bytes"]
        self.packers = tuple(PACKERS.values()) if unpack else ()
        self.packer: Gzip | Xz | None = None  # set when the first bytes are those of a packed file
        self.begun = False
        self.head = b""  # the first bytes, which show what kind of file it is
        self.html = False  # the server declares an HTML page
        self.framed = False  # the server declares where the body ends
        self.served = 0  # bytes received
        self.written = 0  # bytes of the file, unpacked
        self.moved = time.monotonic()  # time of the last bytes

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Failure if they cannot belong to the file."""
        self.moved = time.monotonic()
        self.served += len(chunk)
        if not self.begun:
            chunk, self.head = self.head + chunk, b""
            if any(p.MAGIC.startswith(chunk) and chunk != p.MAGIC for p in self.packers):
                self.head = chunk  # too few bytes to recognise a packed file
                return
            self.begun = True
            self.packer = next((p() for p in self.packers if chunk.startswith(p.MAGIC)), None)
        self.head += chunk[: 512 - len(self.head)]
        if self.packer is None:
            self._keep(chunk)
        else:
            self._unpack(self.packer, chunk)

    def _unpack(self, packer: Gzip | Xz, chunk: bytes) -> None:
        # A packed file is hardly larger than its content, but a hostile one may never end.
        if self.served > self.size + self.size // 1000 + CHUNK:
            raise Failure(WRONG, f"the {packer.NAME} file is larger than its content should be")
        try:
            for piece in packer.pieces(chunk):
                self._keep(piece)
        except (zlib.error, lzma.LZMAError, MemoryError):
            raise Failure(WRONG, f"a damaged {packer.NAME} file") from None

    def _keep(self, content: bytes) -> None:
        self.written += len(content)
        if self.written > self.size:
            raise self.mismatch()
        try:
            self.file.write(content)
        except OSError as error:
            raise VlaeError(f"cannot write {self.file.name}: {error.strerror}") from None
        self.progress(len(content))

    def mismatch(self, wrong: str = "checksum") -> Failure:
        """Return the Failure of a download with a wrong size or a `wrong` kind of checksum."""
        if self.html or self.head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML):
            return Failure(WRONG, "an HTML page instead of the file")
        if self.written > self.size:
            return Failure(WRONG, f"more than the {self.size:,} bytes of the file")
        # Unless the server declares the end, a broken connection looks like a short file.
        kind = WRONG if self.framed else BROKEN
        if not self.exact:
            return Failure(kind, f"{self.written:,} bytes with a wrong {wrong}")
        if self.written < self.size:
            return Failure(kind, f"only {self.written:,} of {self.size:,} bytes")
        return Failure(WRONG, f"right size, wrong {wrong}")


def local_path(source: str) -> Path | None:
    """Return the path of a file URL or plain path; None for any other URL."""
    if source.startswith("file://"):
        _host, _, path = source.removeprefix("file://").partition("/")
        return Path(url2pathname("/" + path))
    return None if "://" in source else Path(os.path.expanduser(source))


def _copy(source: str, sink: Sink) -> None:
    path = local_path(source)
    if path is None:
        raise Failure(WRONG, "not an http, https or file URL")
    if not path.is_file():
        raise Failure(MISSING, "no such file")
    try:
        # If the sink cannot write, it raises VlaeError, not OSError.
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                sink.write(chunk)
    except OSError as error:
        raise Failure(WRONG, f"cannot be read ({error.strerror})") from None


def _within(timeout: float, sink: Sink, work: Callable[[], None]) -> None:
    """Run `work` in a thread; raise Failure if `sink` receives nothing for `timeout` seconds.

    A timeout of the socket is not enough, because it starts again with every byte.
    """
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again in the caller's thread
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        left = sink.moved + timeout - time.monotonic()
        if left <= 0:
            raise slow(timeout)
        thread.join(left)
    if outcome[0] is not None:
        raise outcome[0]
