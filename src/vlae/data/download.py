"""One file from one place: streamed, bounded in size and time, and taken by its checksums only.

A body never gets beyond the size pinned, a server that sends too slowly is given up, a file packed
by gzip or xz is unpacked on the way, and what went wrong is told in a few words.
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

XZ_MEMORY = 2**28  # bytes to unpack with: `xz -9` takes a quarter of it
HTML = (b"<!doctype", b"<html", b"<head", b"<body", b"<title")

SUMS = ("sha256", "md5", "git_blob")  # the checksums that a file may be pinned by


def download(
    source: str, file: dict, target: Path, *, timeout: float, tries: int, pause: float
) -> None:
    """Write `file`, as served by `source`, to `target`, if it is the file.

    `file` has the `path` that names it, and pins its checksums: `sha256`, or where that was
    never published `md5` and `git_blob`, both of which it has to have. `bytes` is its size, or
    `max_bytes` what it cannot exceed. `source` is an http(s) or file URL or a path. What it
    serves may be the file itself or, unless that is packed by its name, the file packed by gzip
    or xz. Anything else does not get to `target`. A server has `timeout` seconds for every
    64 KiB. What may pass is tried `tries` times, with pauses of 1, 2, 3 ... times `pause` seconds.

    Raises Failure if the file did not come, VlaeError if it could not be written here.
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
        disable=None,  # unless stderr is a terminal
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
    """The first pinned checksum that the file at `path` does not have, and what it is instead;
    None if it has all of them. A file of another size is not read for that."""
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
    else:  # what git calls a file of this content
        size = path.stat().st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, lambda: digest).hexdigest()


class Gzip:
    """A gzip file of any number of parts, unpacked piece by piece."""

    NAME, MAGIC = "gzip", b"\x1f\x8b"

    def __init__(self) -> None:
        self.part = zlib.decompressobj(wbits=31)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """What the next packed bytes hold, in pieces of at most CHUNK. Raises zlib.error."""
        while packed:
            if self.part.eof:
                self.part = zlib.decompressobj(wbits=31)
            yield self.part.decompress(packed, CHUNK)
            packed = self.part.unconsumed_tail or self.part.unused_data


class Xz:
    """An xz file of any number of streams, unpacked piece by piece."""

    NAME, MAGIC = "xz", b"\xfd7zXZ\0"

    def __init__(self) -> None:
        self.stream = self._next_stream()

    def _next_stream(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """What the next packed bytes hold, in pieces of at most CHUNK. Raises LZMAError."""
        while packed or not (self.stream.eof or self.stream.needs_input):
            if self.stream.eof:
                self.stream = self._next_stream()
            yield self.stream.decompress(packed, CHUNK)
            packed = self.stream.unused_data


PACKERS: dict[str, type[Gzip] | type[Xz]] = {".gz": Gzip, ".xz": Xz}  # by the end of a file's name


class Sink:
    """A file that a download is written to. It unpacks the bytes and refuses more bytes than
    `pinned`."""

    def __init__(
        self, file: BinaryIO, pinned: dict, unpack: bool, progress: Callable[[int], object]
    ) -> None:
        self.file, self.progress = file, progress
        self.exact = "bytes" in pinned  # otherwise its size is not known, only bounded
        self.size = pinned["bytes"] if self.exact else pinned["max_bytes"]
        self.packers = tuple(PACKERS.values()) if unpack else ()
        self.packer: Gzip | Xz | None = None  # as soon as a packed file has begun
        self.begun = False
        self.head = b""  # the first bytes served, which tell what it is
        self.html = False  # declared to be an HTML page
        self.framed = False  # the server has to say where the body ends
        self.served = 0  # bytes as they came
        self.written = 0  # bytes of the file
        self.moved = time.monotonic()  # when something came last

    def write(self, chunk: bytes) -> None:
        """Take the next bytes served; Failure if they cannot belong to the file."""
        self.moved = time.monotonic()
        self.served += len(chunk)
        if not self.begun:
            chunk, self.head = self.head + chunk, b""
            if any(p.MAGIC.startswith(chunk) and chunk != p.MAGIC for p in self.packers):
                self.head = chunk  # too few to tell
                return
            self.begun = True
            self.packer = next((p() for p in self.packers if chunk.startswith(p.MAGIC)), None)
        self.head += chunk[: 512 - len(self.head)]
        if self.packer is None:
            self._keep(chunk)
        else:
            self._unpack(self.packer, chunk)

    def _unpack(self, packer: Gzip | Xz, chunk: bytes) -> None:
        # Packed it is hardly ever larger than what is in it, but might go on without anything.
        if self.served > self.size + self.size // 1000 + CHUNK:
            raise Failure(WRONG, f"larger when packed by {packer.NAME} than the file itself")
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
        """Return the failure of a download that is not the file, by its `wrong` kind of checksum
        or by its size."""
        if self.html or self.head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML):
            return Failure(WRONG, "an HTML page instead of the file")
        if self.written > self.size:
            return Failure(WRONG, f"more than the {self.size:,} bytes of the file")
        # Unless the end is marked, a connection that breaks looks just like a short file.
        kind = WRONG if self.framed else BROKEN
        if not self.exact:
            return Failure(kind, f"{self.written:,} bytes with a wrong {wrong}")
        if self.written < self.size:
            return Failure(kind, f"only {self.written:,} of {self.size:,} bytes")
        return Failure(WRONG, f"right size, wrong {wrong}")


def local_path(source: str) -> Path | None:
    """The path that a file URL or plain path means; None for any other URL."""
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
        # What the sink cannot write is no OSError any more.
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                sink.write(chunk)
    except OSError as error:
        raise Failure(WRONG, f"cannot be read ({error.strerror})") from None


def _within(timeout: float, sink: Sink, work: Callable[[], None]) -> None:
    """Do `work` in a thread, and give it up when for `timeout` seconds nothing reaches `sink`.

    A timeout of the socket does not do: it begins anew with every single byte.
    """
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed over, whatever it is
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
