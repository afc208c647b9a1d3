"""The raw formats: read exactly, and whatever is off by a byte is named."""

import gzip
import struct

import numpy as np
import pytest

from refusal import refusal
from vlae.data.formats.amat import AMAT_LINE, read_amat, write_amat
from vlae.data.formats.idx import read_idx, write_idx

BITS = np.random.default_rng(1).integers(0, 2, (4, 28, 28), np.uint8)
GREYS = np.random.default_rng(2).integers(0, 256, (4, 28, 28), np.uint8)


@pytest.fixture
def amat(tmp_path):
    path = tmp_path / "images.amat"
    write_amat(path, BITS)
    return path


@pytest.fixture
def idx(tmp_path):
    path = tmp_path / "images.gz"
    write_idx(path, GREYS)
    return path


def message(read, path, count=4):
    return refusal(path, read, path, count)


def test_amat_is_the_published_text(tmp_path):
    """Against the format spelled out, not against the writer."""
    lines = [" ".join(str(bit) for bit in image.ravel()) + "\n" for image in BITS]
    path = tmp_path / "images.amat"
    path.write_text("".join(lines))
    images = read_amat(path, 4)
    assert images.dtype == np.uint8 and np.array_equal(images, BITS)
    content = path.read_bytes()
    write_amat(path, BITS)
    assert path.read_bytes() == content
    assert len(content) == 4 * 1568


@pytest.mark.parametrize(
    ("at", "byte", "fault"),
    [
        (0, b"2", "line 1, column 1: b'2' where 0 or 1 belongs"),
        (2, b" ", "line 1, column 3: b' ' where 0 or 1 belongs"),
        (AMAT_LINE + 1, b"0", "line 2, column 2: b'0' where a space belongs"),
        (AMAT_LINE + 3, b"\t", "line 2, column 4: b'\\t' where a space belongs"),
        (3 * AMAT_LINE + 500, b"\xff", "line 4, column 501: b'\\xff' where 0 or 1 belongs"),
        (3 * AMAT_LINE - 2, b"/", "line 3, column 1,567: b'/' where 0 or 1 belongs"),
        # Without its line feed the line runs into the next one.
        (2 * AMAT_LINE - 1, b" ", "line 2 is longer than 1,567 characters"),
        (AMAT_LINE + 99, b"\n", "line 2 has 99 characters instead of 1,567"),
    ],
)
def test_amat_names_the_wrong_byte(amat, at, byte, fault):
    content = bytearray(amat.read_bytes())
    content[at : at + 1] = byte
    amat.write_bytes(content)
    assert message(read_amat, amat) == fault


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: b"", "0 lines instead of 4"),
        (lambda t: t[: 3 * AMAT_LINE], "3 lines instead of 4"),
        (lambda t: t + t[:AMAT_LINE], "more than the 4 lines expected"),
        (lambda t: t[:-1], "line 4 ends without a line feed"),
        (lambda t: t + b"\n", "more than the 4 lines expected"),
        (lambda t: t.replace(b"\n", b"\r\n"), "line 1 is longer than 1,567 characters"),
        (lambda t: t.replace(b" ", b""), "line 1 has 784 characters instead of 1,567"),
        (lambda t: t.replace(b" \n", b"\n")[2:], "line 1 has 1,565 characters instead of 1,567"),
        (lambda t: b"<html>\n" + t[7:], "line 1 has 6 characters instead of 1,567"),
    ],
)
def test_amat_names_the_wrong_line(amat, change, fault):
    amat.write_bytes(change(amat.read_bytes()))
    assert message(read_amat, amat) == fault


def test_idx_is_the_published_format(tmp_path):
    path = tmp_path / "images.gz"
    content = b"\0\0\x08\x03" + struct.pack(">3I", 4, 28, 28) + GREYS.tobytes()
    path.write_bytes(gzip.compress(content))
    images = read_idx(path, 4)
    assert images.dtype == np.uint8 and np.array_equal(images, GREYS) and images.flags.writeable
    write_idx(path, GREYS)
    assert gzip.decompress(path.read_bytes()) == content


def header(magic=0x803, count=4, rows=28, columns=28):
    return struct.pack(">4I", magic, count, rows, columns)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (header(magic=0x801) + bytes(3136), "not in idx format ("),
        (header(magic=0x903) + bytes(3136), "holds int8 (4, 28, 28), not uint8 (4, 28, 28)"),
        (header(count=5) + bytes(3920), "holds uint8 (5, 28, 28), not uint8 (4, 28, 28)"),
        (header(rows=32) + bytes(3584), "holds uint8 (4, 32, 28), not uint8 (4, 28, 28)"),
        (header() + bytes(3137), "not in idx format ("),
        (header() + bytes(3135), "not in idx format ("),
        (header()[:15], "not in idx format ("),
        (b"", "not in idx format ("),
    ],
)
def test_idx_names_what_is_wrong(tmp_path, content, fault):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content))
    assert message(read_idx, path).startswith(fault)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g[:-1],  # within the trailer
        lambda g: g[: len(g) // 2],
        lambda g: g[:-8] + bytes(8),  # wrong checksum
        lambda g: g[:500] + bytes([g[500] ^ 1]) + g[501:],
        lambda g: g + b"garbage",
    ],
)
def test_idx_refuses_a_damaged_gzip(idx, change):
    idx.write_bytes(change(idx.read_bytes()))
    assert message(read_idx, idx).startswith("not a complete gzip file (")


def test_idx_need_not_be_packed(idx):
    packed = read_idx(idx, 4)
    idx.write_bytes(gzip.decompress(idx.read_bytes()))
    assert np.array_equal(read_idx(idx, 4), packed)


def test_idx_refuses_other_content(idx):
    idx.write_bytes(b"<html>")
    assert message(read_idx, idx).startswith("not in idx format (")
