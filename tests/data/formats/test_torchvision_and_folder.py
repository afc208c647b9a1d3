"""Data sets of one's own: those that torchvision knows, and folders of images."""

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from vlae.data.dataset import load
from vlae.data.fetch import fetch
from vlae.data.formats import folder, torchvision_sets
from vlae.data.formats.idx import write_idx
from vlae.data.formats.registry import FORMATS
from vlae.data.spec import check_dataset
from vlae.errors import VlaeError
from vlae.images import COLOUR, DYNAMIC, FIXED, image_kind

COUNTS = {"train": 5, "valid": 3, "test": 4}
BINARY = {"kind": "binary", "binarization": "dynamic"}
RANDOM = np.random.default_rng(0)
GREYS = {"train": RANDOM.integers(0, 256, (8, 28, 28), np.uint8)}
GREYS["test"] = RANDOM.integers(0, 256, (4, 28, 28), np.uint8)


def spec(format: str, **changes) -> dict:
    block = {"title": "mine", **BINARY, "format": format, "splits": COUNTS} | changes
    return {key: value for key, value in block.items() if value is not None}


# --- torchvision:NAME ------------------------------------------------------------------------


def published(monkeypatch, mirror: Path, name: str) -> None:
    """Small files as those of torchvision's data set, at a mirror, with their checksums there."""
    known, resources = getattr(datasets, name), []
    for key, file in torchvision_sets.KEYS.items():
        path = mirror / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_idx(path, GREYS[key])
        resources.append((file, hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(known, "resources", resources)


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_torchvisions_own_class_reads_the_same_images(tmp_path, monkeypatch, name):
    published(monkeypatch, tmp_path / "mirror", name)
    check_dataset(spec(f"torchvision:{name}"), "datasets.mine")
    fetch("mine", spec(f"torchvision:{name}"), tmp_path, str(tmp_path / "mirror"))
    found = load("mine", DYNAMIC, tmp_path / "data")
    raw = tmp_path / "theirs" / name / "raw"
    shutil.copytree(tmp_path / "mirror" / name, raw)
    for part, file in {"train": "train", "test": "t10k"}.items():
        write_labels(raw / f"{file}-labels-idx1-ubyte.gz", len(GREYS[part]))
    theirs = getattr(datasets, name)
    unpacked = {p: p.with_suffix("") for p in raw.glob("*.gz")}
    for packed, plain in unpacked.items():
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
    train, test = (theirs(str(tmp_path / "theirs"), train=t).data.numpy() for t in (True, False))
    assert np.array_equal(np.concatenate([found.train, found.valid]), train)
    assert np.array_equal(found.test, test) and len(found.train) == 5


def write_labels(path: Path, count: int) -> None:
    header = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big")
    path.write_bytes(gzip.compress(header + bytes(count)))


def test_another_file_than_torchvisions_is_refused(tmp_path, monkeypatch):
    published(monkeypatch, tmp_path / "mirror", "KMNIST")
    write_idx(tmp_path / "mirror" / "KMNIST" / torchvision_sets.KEYS["test"], GREYS["test"][::-1])
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [])
    with pytest.raises(VlaeError, match=r"wrong (md5|checksum)"):
        fetch("mine", spec("torchvision:KMNIST"), tmp_path, str(tmp_path / "mirror"))


def test_too_few_images_are_told(tmp_path, monkeypatch):
    published(monkeypatch, tmp_path / "mirror", "KMNIST")
    wrong = spec("torchvision:KMNIST", splits=COUNTS | {"train": 6})
    with pytest.raises(VlaeError, match="KMNIST has 8 training images of 28 x 28, not"):
        fetch("mine", wrong, tmp_path, str(tmp_path / "mirror"))


def test_every_set_pins_its_files():
    for name in torchvision_sets.NAMES:
        files = torchvision_sets.files(name, {})
        for file in files.values():
            assert len(file["md5"]) == 32 and file["urls"] and file["path"]


def test_emnist_is_turned_upright(tmp_path):
    raw = {"all": tmp_path / "gzip.zip"}
    block = spec("torchvision:EMNIST-letters")
    counts = FORMATS[block["format"]].example(raw, block)
    arrays = FORMATS[block["format"]].read(raw, block)
    assert {split: len(images) for split, images in arrays.items()} == counts
    stored = np.concatenate([arrays["train"], arrays["valid"]])
    assert np.array_equal(stored, torchvision_sets.noise(8, 28, 256))


def test_fixed_bits_are_those_from_the_middle_on(tmp_path, monkeypatch):
    published(monkeypatch, tmp_path / "mirror", "KMNIST")
    fixed = spec("torchvision:KMNIST", binarization="fixed")
    fetch("mine", fixed, tmp_path, str(tmp_path / "mirror"))
    found = load("mine", FIXED, tmp_path / "data")
    assert np.array_equal(found.test, GREYS["test"] >= 128)


# --- folder ----------------------------------------------------------------------------------


def a_folder(path: Path, sizes: list[tuple[int, int]], split: str = "") -> Path:
    (path / split).mkdir(parents=True, exist_ok=True)
    for number, (width, height) in enumerate(sizes):
        grey = np.full((height, width), 10 * number, np.uint8)
        Image.fromarray(np.stack([grey, grey // 2, grey * 0], 2)).save(
            path / split / f"{number:02}.png"
        )
    return path


SIZES = [(28, 28), (32, 32), (100, 60), (60, 100), (1, 1), (300, 31)] * 2


@pytest.mark.parametrize("kind", [DYNAMIC, COLOUR], ids=lambda kind: kind.name)
def test_images_of_any_size_fit(tmp_path, kind):
    a_folder(tmp_path / "mine", SIZES)
    block = spec("folder", folder="mine")
    if kind is COLOUR:
        block |= {"kind": "colour"}
        del block["binarization"]
    check_dataset(block, "datasets.mine")
    assert image_kind(block) is kind
    fetch("mine", block, tmp_path)
    found = load("mine", kind, tmp_path / "data")
    images = np.concatenate([found.train, found.valid, found.test])
    assert images.shape == (12, *kind.shape) and not found.labels
    # Each is of one colour, whatever its size: all of them are there, in an order of its own.
    levels = [int(image.flat[0]) for image in images]
    assert all((image[..., :1, :1] == image).all() for image in images)
    expected = [10 * n for n in range(12)]
    if kind is DYNAMIC:
        expected = [
            int(Image.new("RGB", (1, 1), (n, n // 2, 0)).convert("L").getpixel((0, 0)))
            for n in expected
        ]
    assert sorted(levels) == sorted(expected) and levels != sorted(levels)


def test_an_image_is_cut_at_its_middle(tmp_path):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = (1, 2, 3)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (folder._image(tmp_path / "wide.png", COLOUR) == [[[1]], [[2]], [[3]]]).all()


def test_folders_of_the_splits_are_the_splits(tmp_path):
    for split, count in COUNTS.items():
        a_folder(tmp_path / "mine", SIZES[:count], split)
    fetch("mine", spec("folder", folder="mine"), tmp_path)
    found = load("mine", DYNAMIC, tmp_path / "data")
    assert [len(found.train), len(found.valid), len(found.test)] == [5, 3, 4]
    wrong = spec("folder", folder="mine", splits=COUNTS | {"test": 5})
    with pytest.raises(VlaeError, match="holds train 5, valid 3, test 4, but splits says"):
        fetch("mine", wrong, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: shutil.rmtree(path), "there is no such folder"),
        (lambda path: (path / "00.png").unlink(), "holds 11 images, but splits says"),
        (lambda path: (path / "00.png").write_bytes(b"no"), "00.png: not a usable image"),
        (lambda path: (path / "readme.txt").write_text("no image"), None),
    ],
)
def test_a_folder_that_is_not_as_it_should_be(tmp_path, change, said):
    change(a_folder(tmp_path / "mine", SIZES))
    if said is None:
        assert fetch("mine", spec("folder", folder="mine"), tmp_path)
        return
    with pytest.raises(VlaeError, match=said) as caught:
        fetch("mine", spec("folder", folder="mine"), tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "data" / "mine.npz").exists()


def grey(path: Path) -> np.ndarray:
    return folder._image(path, DYNAMIC)


def test_16_bit_values_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 784).round().astype(np.uint16).reshape(28, 28)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(grey(tmp_path / "ramp.png"), ramp // 257)


def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path):
    picture, exif = Image.fromarray(GREYS["test"][0]), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(grey(tmp_path / "turned.png"), np.rot90(GREYS["test"][0], -1))


def test_transparent_pixels_and_values_of_32_bits_are_refused(tmp_path):
    opaque = np.full((28, 28, 4), 255, np.uint8)
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert (grey(tmp_path / "opaque.png") == 255).all()
    opaque[3, 4, 3] = 254
    Image.fromarray(opaque).save(tmp_path / "hole.png")
    Image.fromarray(np.ones((28, 28), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.ones((28, 28), np.int32)).save(tmp_path / "int.tiff")
    for name, said in (("hole.png", "transparent"), ("float.tiff", "32 bits"), ("int.tiff", "32")):
        with pytest.raises(VlaeError, match=f"{name}: has .*{said}"):
            grey(tmp_path / name)


def test_folders_of_some_splits_are_refused(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(GREYS["test"][0]).save(tmp_path / split / "1.png")
    counts = {"train": 1, "valid": 1, "test": 1}
    with pytest.raises(VlaeError, match="has the folders train, test, but lacks valid"):
        folder.read({"all": tmp_path}, spec("folder", splits=counts))
    (tmp_path / "val").rename(tmp_path / "valid")
    (tmp_path / "valid/1.png").unlink()
    with pytest.raises(VlaeError, match="holds train 1, valid 0, test 1"):
        folder.read({"all": tmp_path}, spec("folder", splits=counts))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "torchvision:CIFAR100"}, "format must be one of .*torchvision:KMNIST"),
        ({"kind": "colour", "binarization": None}, "kind must be binary with the format torch"),
    ],
)
def test_a_format_that_does_not_fit_is_named(changes, said):
    block = {key: value for key, value in (spec("torchvision:KMNIST") | changes).items() if value}
    with pytest.raises(VlaeError, match=said):
        check_dataset(block, "datasets.mine")


def test_a_pinned_folder_is_taken_as_it_was_only(tmp_path):
    path = a_folder(tmp_path / "mine", SIZES)
    pinned = spec("folder", folder="mine", sha256=folder.digest(path))
    check_dataset(pinned, "datasets.mine")
    fetch("mine", pinned, tmp_path)
    (path / "00.png").rename(path / "12.png")
    with pytest.raises(VlaeError, match=r"do not have the checksum datasets\.mine\.sha256"):
        fetch("mine", pinned, tmp_path)
