"""Binary images in PNG, idx and npz files."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refusal import refusal
from vlae.coding.image_files import binary, image_writer, open_images
from vlae.data.formats.idx import read_idx
from vlae.errors import VlaeError

BITS = np.random.default_rng(0).integers(0, 2, (7, 28, 28), np.uint8)
NAMES = [f"{i}.png" for i in range(7)]


def write(path: Path, format: str, images: np.ndarray) -> Path:
    if format == "png":
        path.mkdir()
    with image_writer(path, format, len(images), NAMES) as writer:
        writer.write(images[:3])
        writer.write(images[3:])
    return path


@pytest.mark.parametrize("one", [1, 255])
@pytest.mark.parametrize("format", ["png", "idx", "npz"])
def test_what_is_written_is_read(tmp_path, format, one):
    path = write(tmp_path / "images", format, BITS * np.uint8(one))
    with open_images([path]) as images:
        assert (images.count, images.format) == (7, format)
        assert images.names == (NAMES if format == "png" else [])
        parts = [images.read(start, min(start + 4, 7)) for start in (0, 4)]
    found, value = binary(np.concatenate(parts), None, "here")
    assert np.array_equal(found, BITS) and value == one


def test_others_read_what_is_written(tmp_path):
    path = write(tmp_path / "a", "idx", BITS * np.uint8(255))
    assert np.array_equal(read_idx(path, 7), BITS * 255)
    with np.load(write(tmp_path / "b", "npz", BITS)) as arrays:
        assert list(arrays) == ["images"] and np.array_equal(arrays["images"], BITS)


def test_named_files_keep_their_order(tmp_path):
    folder = write(tmp_path / "a", "png", BITS)
    with open_images([folder / "4.png", folder / "2.png"]) as images:
        assert images.names == ["4.png", "2.png"]
        assert np.array_equal(images.read(0, 2), BITS[[4, 2]])


def test_arrays_of_an_npz_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, test=BITS, train=BITS[:2], labels=np.arange(7))
    assert "choose an array of images, uint8 (N, 28, 28), with --array; it has test, train" in (
        refusal(path, lambda: open_images([path]).__enter__())
    )
    with open_images([path], "train") as images:
        assert images.count == 2 and np.array_equal(images.read(0, 2), BITS[:2])


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": BITS.astype(np.float32)},
        {"x": BITS[:, :27]},
        {"x": np.asfortranarray(BITS)},
        {"x": BITS.reshape(7, 784)},
        {"x": np.array([{}], dtype=object)},
        {},
    ],
)
def test_other_arrays_are_no_images(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    said = refusal(path, lambda: open_images([path]).__enter__())
    assert "it has none" in said and ("'x' (" in said or not arrays)


def test_grey_values_are_refused():
    for values in ([0, 7], [0, 1, 255], [0, 128, 255]):
        with pytest.raises(VlaeError, match="here: not a binary image: it has the value"):
            binary(np.array(values, np.uint8), None, "here")
    with pytest.raises(VlaeError, match="value 255; pixels must be 0 and 1, or 0 and 255, the"):
        binary(np.array([0, 255], np.uint8), 1, "here")
    assert binary(np.zeros(3, np.uint8), None, "here")[1] is None


def png(path: Path, mode: str = "L", size: tuple[int, int] = (28, 28)) -> Path:
    Image.new(mode, size).save(path, format="PNG")
    return path


def test_png_files_that_are_refused(tmp_path):
    def read(*paths: Path) -> None:
        with open_images(list(paths)) as images:
            images.read(0, images.count)

    wide = png(tmp_path / "wide.png", size=(30, 28))
    assert refusal(wide, read, wide) == "is 30x28, not 28x28 pixels"
    colour = png(tmp_path / "colour.png", "RGB")
    assert refusal(colour, read, colour) == (
        "is a picture of mode RGB, not black and white (mode 1 or L)"
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(wide.read_bytes()[:40])
    assert "cannot be read as a PNG file" in refusal(broken, read, broken)
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", read, tmp_path / "empty") == "holds no PNG files"
    text = tmp_path / "notes.txt"
    text.write_text("some notes")
    assert "name PNG files or folders of them" in refusal(text, read, text, wide)
    for name in ("no", "no.png"):
        assert refusal(tmp_path / name, read, tmp_path / name) == "no such file"
    (tmp_path / "other").mkdir()
    twice = png(tmp_path / "other" / "wide.png")
    with pytest.raises(VlaeError, match=r"two images are called wide\.png"):
        read(wide, twice)


def test_idx_files_that_are_refused(tmp_path):
    path = write(tmp_path / "a.idx", "idx", BITS)
    content = path.read_bytes()

    def said(changed: bytes) -> str:
        path.write_bytes(changed)
        return refusal(path, lambda: open_images([path]).__enter__())

    assert said(content[:-1]) == "its size does not fit its 7 images"
    foreign = (
        "neither an idx file of images, unpacked, nor an npz file; name one of these, or PNG "
        "files or folders of them"
    )
    assert said(content[:10]) == foreign
    assert said(b"something else of a length that would do") == foreign
    assert said(content[:8] + b"\0\0\0\x1d" + content[12:]) == "images of 29x28, not 28x28 pixels"


def test_an_npz_file_that_is_cut_short_or_locked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=BITS)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with open_images([path]) as images:
        assert "damaged, or packed in an unknown way" in refusal(path, images.read, 0, 7)
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (9, 28, 28)}
        )
        member.write(BITS.tobytes())
    with open_images([path]) as images:
        assert refusal(path, images.read, 0, 9) == "is cut short"
