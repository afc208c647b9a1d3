"""CIFAR-10 files that are damaged, foreign, or made to unpack to more than there is room for."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import FOREIGN, attempt, cases, damaged, empty_folder, hostile
from vlae.data.formats import cifar
from vlae.errors import VlaeError

MIB = 2**20
BLOCK = tarfile.BLOCKSIZE


def examples() -> tuple[bytes, list[bytes], dict[str, int], dict[str, dict]]:
    """The content of a small archive and of six small files, and what is in both."""
    with empty_folder() as folder:
        counts = cifar.example_tar(folder / "tar.gz")
        paths = [folder / key for key in cifar.BIN_FILES]
        cifar.example_bin(*paths)
        arrays = cifar.read_tar(folder / "tar.gz", counts)
        return (folder / "tar.gz").read_bytes(), [p.read_bytes() for p in paths], counts, arrays


TAR_GZ, BIN, COUNTS, TRUE = examples()
TAR = gzip.decompress(TAR_GZ)


def checked(outcome):
    """An outcome that is not a refusal is images and labels."""
    if not isinstance(outcome, VlaeError):
        for split, count in COUNTS.items():
            images, labels = outcome[split], outcome[f"{split}_labels"]
            assert images.shape == (count, 3, 32, 32) and labels.shape == (count,)
            assert images.dtype == labels.dtype == np.uint8 and labels.max() < 10
    return outcome


def test_a_header_about_the_next_one_is_skipped_unread():
    """Some programs write times in fractions of a second that way."""
    comment = header("x", None, b"x", b"30 mtime=1234567890.123456789\n")
    assert same(read_tar(gzip.compress(comment + TAR)))
    digits = header("x", None, b"x", b"1" * 60_000)  # hours, were they parsed as tarfile does
    assert same(read_tar(gzip.compress(digits * 15 + TAR)))


def same(outcome) -> bool:
    return all(np.array_equal(outcome[key], TRUE[key]) for key in TRUE)


def read_tar(content: bytes):
    with empty_folder() as folder:
        path = folder / "cifar.tar.gz"
        path.write_bytes(content)
        return checked(attempt("data file, cifar10_tar", folder, cifar.read_tar, path, COUNTS))


def read_bin(contents: list[bytes]):
    def read(*paths):
        return cifar.read_bin(*paths, counts=COUNTS)

    with empty_folder() as folder:
        paths = [folder / key for key in cifar.BIN_FILES]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return checked(attempt("data file, cifar10_bin", folder, read, *paths))


@cases(60)
@given(content=hostile(TAR_GZ))
def test_damaged_archives(content):
    outcome = read_tar(content)
    assert isinstance(outcome, VlaeError) or same(outcome)  # a gzip has a checksum


@cases(120)
@given(content=damaged(TAR))
def test_archives_damaged_below_their_compression(content):
    read_tar(gzip.compress(content, 1))


@cases(120)
@given(data=st.data())
def test_headers_of_any_kind(data):
    """A header of one's own before one of the members."""
    with tarfile.open(fileobj=io.BytesIO(TAR)) as archive:
        at = data.draw(st.sampled_from([member.offset for member in archive.getmembers()]))
    texts = st.one_of(st.binary(max_size=600), st.sampled_from(PAX))
    added = header(
        data.draw(st.sampled_from(NAMES)),
        data.draw(st.sampled_from([None, 0, 1, 511, 8**11 - 1])),
        data.draw(st.sampled_from(KINDS)),
        data.draw(texts),
    )
    read_tar(gzip.compress(TAR[:at] + added + TAR[at:], 1))


@cases(60)
@given(data=st.data())
def test_damaged_batches(data):
    which = data.draw(st.integers(0, len(BIN) - 1))
    read_bin([*BIN[:which], data.draw(hostile(BIN[which])), *BIN[which + 1 :]])


# --- What only looks small -------------------------------------------------------------------

NAMES = ["x", "../x", "/etc/x", cifar.FOLDER, cifar.TEST_MEMBER, "a" * 99, "././@LongLink"]
NAMES += ["x\n\x1b[2Jy", "\udcff"]
KINDS = [bytes([kind]) for kind in b"01234567xgLKSXNVD\0\xff"]
PAX = [
    b"11 size=abc\n",
    b"13 size=-100\n",
    b"21 size=9999999999999\n",
    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
    b"30 GNU.sparse.map=1,2,3,4,5,6\n",
    b"99999999999999 path=x\n",
    b"0 path=x\n",
    b"16 path=../../x\n",
    b"9 mtime=\n",
    b"21 mtime=1e999999999\n",
    b"22 linkpath=/etc/passwd\n",
]


def header(name: str, size: int | None, kind: bytes, content: bytes) -> bytes:
    """A header, and content of that size or of the one it says."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content) if size is None else size
    member.linkname = "/etc/passwd" if kind in b"12" else ""
    head = member.tobuf(tarfile.USTAR_FORMAT, errors="surrogateescape")
    return head + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")


def negative(head: bytes) -> bytes:
    """A header whose size is -1, in base 256."""
    changed = bytearray(head)
    changed[124:136] = b"\xff" * 12
    changed[148:156] = b"%06o\0 " % (sum(changed[:148]) + 8 * 32 + sum(changed[156:512]))
    return bytes(changed)


COMMENT = header("x", None, b"x", b"30 comment=aaaaaaaaaaaaaaaaaa\n")
EMPTY_BLOCK = b"\0\0\0\xff\xff"  # of deflate, stored as it is
LONG_NAME = header("././@LongLink", None, b"L", b"abcd\0")

TRAPS = {
    "3,000 headers that prepare the next": lambda: gzip.compress(COMMENT * 3000 + TAR),
    "3,000 long names": lambda: gzip.compress(LONG_NAME * 3000 + TAR),
    "a name of 200 MiB": lambda: gzip.compress(
        header("././@LongLink", None, b"L", b"a" * 200 * MIB) + TAR, 1
    ),
    "a name of 8 GiB, announced": lambda: gzip.compress(header("x", 8**11 - 1, b"L", b"a") + TAR),
    "a comment of 200 MiB": lambda: gzip.compress(
        header("x", None, b"x", b"209715200 comment=" + b"a" * 200 * MIB) + TAR, 1
    ),
    "a text of 8 GiB, announced": lambda: gzip.compress(
        header(cifar.TEXT_MEMBERS[1], 8**11 - 1, b"0", b"") + TAR
    ),
    "a batch of 200 MiB": lambda: gzip.compress(
        header(cifar.TRAIN_MEMBERS[0], None, b"0", bytes(200 * MIB)) + TAR, 1
    ),
    "200 MiB behind the end": lambda: gzip.compress(TAR[: -2 * BLOCK] + b"x" * 200 * MIB, 1),
    "a gzip in a gzip": lambda: gzip.compress(TAR_GZ),
    "a tar without a gzip": lambda: TAR,
    "a million digits in a comment": lambda: gzip.compress(
        header("x", None, b"x", b"1" * MIB) + TAR
    ),
    "a million empty gzips": lambda: gzip.compress(b"") * 1_000_000,
    "a million empty blocks in a gzip": lambda: gzip.compress(b"")[:10] + EMPTY_BLOCK * 1_000_000,
    "half of it in a second gzip": lambda: gzip.compress(TAR[:5120]) + gzip.compress(TAR[5120:]),
    "what a Mac adds": lambda: gzip.compress(
        header(f"{cifar.FOLDER}/._readme.html", None, b"0", bytes(163)) + TAR
    ),
    "a member cut short": lambda: gzip.compress(TAR[: 5 * BLOCK]),
    "its folder again and again": lambda: gzip.compress(
        header(cifar.FOLDER, 0, b"5", b"") * 1000 + TAR
    ),
    "a negative size": lambda: gzip.compress(negative(header("x", 9, b"0", b"")) + TAR),
    "a member with a hole, by its own name": lambda: gzip.compress(
        header(cifar.TEXT_MEMBERS[1], 9, b"S", bytes(BLOCK)) + TAR
    ),
    "a member with a hole": lambda: gzip.compress(header("x", 9, b"S", bytes(BLOCK)) + TAR),
}


@pytest.mark.parametrize("name", TRAPS)
def test_archives_that_are_traps(name):
    assert isinstance(read_tar(TRAPS[name]()), VlaeError)


def test_foreign_files_are_refused():
    for content in FOREIGN:
        assert isinstance(read_tar(content), VlaeError)
        assert isinstance(read_bin([content, *BIN[1:]]), VlaeError)
