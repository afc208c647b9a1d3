"""Files of compressed images: round trips, what is refused, another machine."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from miniature import PROJECT, made_up_arrays
from published import environment, published_clone
from small_models import small_vlae
from vlae.coding import codec
from vlae.coding.bits_back import BitsBack
from vlae.coding.codec import coding_model, compress, decompress
from vlae.coding.container import Reader
from vlae.coding.image_files import image_writer, open_images
from vlae.coding.network import CodingModel
from vlae.errors import VlaeError

GOLDEN = Path(__file__).parent / "golden"
BITS = made_up_arrays("fixed", 1, 1, 10)["test"]
MODEL = CodingModel(small_vlae("af"))


def write(path: Path, format: str, one: int) -> Path:
    if format == "png":
        path.mkdir()
    names = [f"image {i}.png" for i in range(len(BITS))]
    with image_writer(path, format, len(BITS), names) as writer:
        writer.write(BITS * np.uint8(one))
    return path


def load(run: str) -> CodingModel:
    assert run == "a-run"
    return MODEL


@pytest.fixture
def compressed(tmp_path) -> Path:
    images = write(tmp_path / "images", "idx", 255)
    compress("a-run", MODEL, [images], tmp_path / "file")
    return tmp_path / "file"


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


@pytest.mark.parametrize("one", [1, 255])
@pytest.mark.parametrize("format", ["png", "idx", "npz"])
def test_the_very_same_files(tmp_path, format, one):
    images = write(tmp_path / "images", format, one)
    done = compress("a-run", MODEL, [images], tmp_path / "file")
    assert done.file_bytes == (tmp_path / "file").stat().st_size
    header = decompress(tmp_path / "file", tmp_path / "back", load)
    assert (header.images, header.format, header.one) == (len(BITS), format, one)
    if format == "npz":  # an archive has the time at which it was written
        with np.load(tmp_path / "back") as arrays:
            assert np.array_equal(arrays["images"], BITS * np.uint8(one))
    else:
        assert contents(tmp_path / "back") == contents(images)


def test_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "SEGMENT", 8)
    images = write(tmp_path / "images", "idx", 1)
    compress("a-run", MODEL, [images], tmp_path / "file")
    decompress(tmp_path / "file", tmp_path / "back", load)
    assert contents(tmp_path / "back") == contents(images)


def test_what_the_numbers_say(tmp_path):
    images = write(tmp_path / "images", "idx", 1)
    done = compress("a-run", MODEL, [images], tmp_path / "file")
    words = BitsBack(MODEL).encode(codec.torch.from_numpy(BITS))
    assert done.images == len(BITS)
    assert done.bits_per_image == pytest.approx(32 * len(words) / len(BITS), abs=2)
    assert done.header_bytes < 60


def refused(path: Path, tmp_path: Path, said: str, model=MODEL) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VlaeError, match=said):
        decompress(path, tmp_path / "back", lambda run: model)
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


def with_crc(content: bytes) -> bytes:
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def test_a_damaged_file(compressed, tmp_path):
    content = compressed.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        compressed.write_bytes(changed)
        said = "is not a file of vlae compress" if place < 4 else "is damaged or cut short"
        refused(compressed, tmp_path, said)
    for end in range(len(content)):
        compressed.write_bytes(content[:end])
        refused(compressed, tmp_path, "is damaged or cut short|is not a file of vlae compress")
    compressed.write_bytes(content + b"\0")
    refused(compressed, tmp_path, "is damaged or cut short")


def test_bits_that_were_changed_on_purpose(compressed, tmp_path):
    """With the right checksum of the file: what comes out is not what was compressed."""
    content = bytearray(compressed.read_bytes())
    content[-30] ^= 4
    compressed.write_bytes(with_crc(bytes(content)))
    refused(compressed, tmp_path, "left over|not those that were compressed")


def test_a_foreign_file(tmp_path):
    (tmp_path / "file").write_bytes(b"PK\x03\x04 something else altogether")
    refused(tmp_path / "file", tmp_path, "is not a file of vlae compress")


def test_another_version(compressed, tmp_path):
    content = bytearray(compressed.read_bytes())
    content[4] = 9
    compressed.write_bytes(with_crc(bytes(content)))
    refused(compressed, tmp_path, "written by another version of vlae")


def test_other_weights(compressed, tmp_path):
    refused(compressed, tmp_path, "other weights of a-run", CodingModel(small_vlae("gaussian")))


def test_another_arithmetic(compressed, tmp_path):
    other = CodingModel(small_vlae("af"))
    other.__dict__["check"] = b"none"  # as a machine would that rounds differently
    refused(compressed, tmp_path, "this machine computes a-run differently", other)


def test_names_that_lead_elsewhere(tmp_path):
    images = write(tmp_path / "images", "png", 255)
    with open_images([images]) as opened:
        names = opened.names
    for name in ("../evil.png", "/evil.png", "a\\evil.png", "evil.exe", names[1]):
        changed = tmp_path / "changed"
        _with_names(images, changed, [name, *names[1:]])
        refused(changed, tmp_path, "its header makes no sense")
        changed.unlink()


def _with_names(images: Path, out: Path, names: list[str]) -> None:
    """Compress images under other names than their own."""
    real = codec.open_images

    class Renamed:
        def __init__(self, *arguments):
            self.context = real(*arguments)

        def __enter__(self):
            opened = self.context.__enter__()
            opened.names = names
            return opened

        def __exit__(self, *arguments):
            return self.context.__exit__(*arguments)

    codec.open_images = Renamed
    try:
        compress("a-run", MODEL, [images], out)
    finally:
        codec.open_images = real


def test_nothing_is_overwritten(compressed, tmp_path):
    (tmp_path / "there").write_text("mine")
    images = tmp_path / "images"
    with pytest.raises(VlaeError, match="exists already"):
        compress("a-run", MODEL, [images], tmp_path / "there")
    with pytest.raises(VlaeError, match="exists already"):
        decompress(compressed, tmp_path / "there", load)
    assert (tmp_path / "there").read_text() == "mine"


def test_no_images(tmp_path):
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(VlaeError, match="none"):
        compress("a-run", MODEL, [tmp_path / "none.npz"], tmp_path / "file")
    (tmp_path / "none.idx").write_bytes(struct.pack(">4I", 0x803, 0, 28, 28))
    with pytest.raises(VlaeError, match="holds no images"):
        compress("a-run", MODEL, [tmp_path / "none.idx"], tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_colour_runs_are_refused():
    with pytest.raises(VlaeError, match="only binary images can be compressed"):
        coding_model("cifar10-vlae", object())


@pytest.mark.parametrize("kind", ["af", "iaf"])
def test_a_file_of_another_machine(kind, tmp_path):
    """Written on an AMD EPYC with AVX-512; it must be read, and written, the same anywhere."""
    model, golden = CodingModel(small_vlae(kind)), GOLDEN / f"{kind}.vlae"
    header = decompress(golden, tmp_path / "back", lambda run: model)
    assert header.images == len(BITS)
    images = write(tmp_path / "images", "idx", 255)
    assert contents(tmp_path / "back") == contents(images)
    compress("a-run", model, [images], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == golden.read_bytes()


OTHER_MACHINES = {
    "an old processor": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OMP_NUM_THREADS": "1",
    },
    "four threads": {"OMP_NUM_THREADS": "4", "OMP_DYNAMIC": "false"},
}


def test_a_published_run_in_other_processes(tmp_path):
    """By the command line, with other instructions and another number of threads."""
    images = write(tmp_path / "images.idx", "idx", 255)
    variables = os.environ | environment(published_clone(tmp_path / "clone"))

    def vlae(*arguments: str, **more: str) -> str:
        command = [sys.executable, "-m", "vlae", *arguments]
        done = subprocess.run(
            command, env=variables | more, cwd=PROJECT, capture_output=True, text=True, check=True
        )
        return done.stdout

    file = tmp_path / "file.vlae"
    said = vlae("compress", "static_mnist-vlae", str(images), "-o", str(file))
    assert said.startswith(f"{file}: 10 images in {file.stat().st_size:,} bytes, of which ")
    for name, more in OTHER_MACHINES.items():
        back = tmp_path / name
        said = vlae("decompress", str(file), "-o", str(back), **more)
        assert said == f"{back}: 10 images (idx), unpacked with static_mnist-vlae\n"
        assert contents(back) == contents(images)
        with open(file, "rb") as opened:
            assert Reader(file, opened).header().run == "static_mnist-vlae"
