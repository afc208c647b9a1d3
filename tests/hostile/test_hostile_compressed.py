"""Compressed images, and images to compress, that are damaged or foreign."""

import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import attempt, cases, empty_folder, hostile
from miniature import made_up_arrays
from small_models import small_vlae
from vlae.coding.bits_back import BitsBack
from vlae.coding.codec import compress, decompress
from vlae.coding.container import Reader
from vlae.coding.image_files import open_images
from vlae.coding.lossy_codec import compress_lossy, decompress_lossy
from vlae.coding.network import CodingModel
from vlae.errors import VlaeError
from vlae.models.vlae import VLAE

BITS = made_up_arrays("fixed", 1, 1, 5)["test"]
MODEL = CodingModel(small_vlae("no code"))
LOSSY_MODEL = small_vlae("af")
MODEL.check, MODEL.weights  # noqa: B018 - computed before a case's time and memory are watched


def written(write) -> bytes:
    with empty_folder() as folder:
        write(folder)
        return (folder / "file").read_bytes()


def idx(folder) -> None:
    (folder / "file").write_bytes(struct.pack(">4I", 0x803, len(BITS), 28, 28) + BITS.tobytes())


def npz(folder) -> None:
    np.savez_compressed(folder / "file.npz", x=BITS)
    (folder / "file.npz").rename(folder / "file")


def of_vlae(folder) -> None:
    idx(folder)
    (folder / "file").rename(folder / "images")
    compress("a-run", MODEL, [folder / "images"], folder / "file")


def lossy(folder) -> None:
    idx(folder)
    (folder / "file").rename(folder / "images")
    compress_lossy("a-run", LOSSY_MODEL, [folder / "images"], folder / "file", 5)


IMAGES = {"idx": written(idx), "npz": written(npz)}
COMPRESSED, LOSSY = written(of_vlae), written(lossy)


@cases(60)
@given(hostile(COMPRESSED))
def test_a_compressed_file(content):
    with empty_folder() as folder:
        (folder / "file").write_bytes(content)
        back = folder / "back"
        outcome = attempt("compressed file", folder, decompress, folder / "file", back, load)
        if isinstance(outcome, VlaeError):
            assert [path.name for path in folder.iterdir()] == ["file"]
        else:
            assert content == COMPRESSED


def load(run: str) -> CodingModel:
    return MODEL


def load_lossy(run: str) -> VLAE:
    return LOSSY_MODEL


@cases(60)
@given(hostile(LOSSY), st.booleans())
def test_a_lossy_file(content, with_the_right_checksum):
    """With the right checksum, other indices give other images, and no crash."""
    if with_the_right_checksum:
        content += struct.pack("<I", zlib.crc32(content))
    with empty_folder() as folder:
        (folder / "file").write_bytes(content)
        back = folder / "back"
        outcome = attempt(
            "lossy file", folder, decompress_lossy, folder / "file", back, load_lossy
        )
        if isinstance(outcome, VlaeError):
            assert [path.name for path in folder.iterdir()] == ["file"]
        elif not with_the_right_checksum:
            assert content == LOSSY


@cases(30)
@given(st.binary(min_size=4, max_size=4))
def test_any_indices(indices):
    """Other indices are other codes of the prior."""
    content = LOSSY[:-8] + indices
    with empty_folder() as folder:
        (folder / "file").write_bytes(content + struct.pack("<I", zlib.crc32(content)))
        arguments = folder / "file", folder / "back", load_lossy
        outcome = attempt("indices of a lossy file", folder, decompress_lossy, *arguments)
        assert not isinstance(outcome, VlaeError)


@cases(100)
@given(st.one_of(hostile(COMPRESSED[:80]), hostile(LOSSY[:40])))
def test_a_header_with_the_right_checksum(content):
    def read():
        with open(folder / "file", "rb") as file:
            return Reader(folder / "file", file).header()

    with empty_folder() as folder:
        (folder / "file").write_bytes(content + struct.pack("<I", zlib.crc32(content)))
        attempt("header of a compressed file", folder, read)


@cases(30)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=100), st.integers(1, 8))
def test_any_words(words, count):
    """Other words than those of an encoder give images or an error, and no crash."""
    with empty_folder() as folder:
        array = np.array(words, np.uint32)
        attempt("words", folder, BitsBack(MODEL).decode, array, count)


def _read(path):
    with open_images([path]) as images:
        return images.read(0, min(images.count, 1000))


@cases(100)
@given(data=st.data())
def test_images_to_compress(data):
    kind = data.draw(st.sampled_from(sorted(IMAGES)))
    with empty_folder() as folder:
        (folder / "file").write_bytes(data.draw(hostile(IMAGES[kind])))
        outcome = attempt(f"images to compress, {kind}", folder, _read, folder / "file")
    if not isinstance(outcome, VlaeError):
        assert outcome.dtype == np.uint8 and outcome.shape[1:] == (28, 28)
