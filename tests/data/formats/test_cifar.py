"""CIFAR-10 from both kinds of files: pixels and labels in their places, or refused in a line."""

import gzip
import hashlib
import io
import lzma
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from refusal import refusal
from vlae.data.dataset import load
from vlae.data.fetch import fetch
from vlae.data.formats import cifar
from vlae.errors import VlaeError
from vlae.images import COLOUR, FIXED

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (14, 3, 32, 32), np.uint8)
LABELS = np.arange(14, dtype=np.uint8) % 10
COUNTS = {"train": 7, "valid": 3, "test": 4}
PARAMS = yaml.safe_load(Path(__file__).parents[3].joinpath("params.yaml").read_text())
MIRROR = os.environ.get("VLAE_DATA_MIRROR")

# Of data_batch_1.bin to data_batch_5.bin and test_batch.bin, as published.
PUBLISHED_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)
PREPARED = "e7a84a061165ffd80e764cea207c605f18f774f6f13ab72907703846dceb9c46"


def spelled_out(images, labels) -> bytes:
    """The format word by word, not by the writer."""
    content = b""
    for image, label in zip(images, labels, strict=True):
        content += bytes([label])
        for plane in image:
            for row in plane:
                content += bytes(row.tolist())
    return content


BATCHES = [spelled_out(IMAGES[i : i + 2], LABELS[i : i + 2]) for i in range(0, 10, 2)]
TEST = spelled_out(IMAGES[10:], LABELS[10:])
MEMBERS = dict(zip(cifar.TRAIN_MEMBERS, BATCHES, strict=True)) | {
    cifar.TEST_MEMBER: TEST,
    "cifar-10-batches-bin/batches.meta.txt": b"airplane\n",
    "cifar-10-batches-bin/readme.html": b"<html></html>",
}


def whole(arrays) -> None:
    assert {k: len(v) for k, v in arrays.items() if "label" not in k} == COUNTS
    images = np.concatenate([arrays[s] for s in ("train", "valid", "test")])
    labels = np.concatenate([arrays[f"{s}_labels"] for s in ("train", "valid", "test")])
    assert images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, IMAGES) and np.array_equal(labels, LABELS)


def message(path, read, *paths) -> str:
    return refusal(path, read, *paths, counts=COUNTS)


# --- the archive as published ----------------------------------------------------------------


def make_tar(path, members=MEMBERS, extra=()) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("cifar-10-batches-bin/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_archive_in_any_order_of_its_members(tmp_path):
    whole(cifar.read_tar(make_tar(tmp_path / "a.tar.gz"), counts=COUNTS))
    turned = dict(reversed(MEMBERS.items()))
    whole(cifar.read_tar(make_tar(tmp_path / "b.tar.gz", turned), counts=COUNTS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz"]  # nothing else


def test_other_members_of_the_archive_are_ignored(tmp_path):
    extra = [(tarfile.TarInfo(name), b"x") for name in ("/etc/passwd", "../x.bin", "a\nb")]
    extra.append((a_link("link"), b""))
    whole(cifar.read_tar(make_tar(tmp_path / "a.tar.gz", MEMBERS, extra), counts=COUNTS))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def a_link(name, kind=tarfile.SYMTYPE, to="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


BATCH_1 = cifar.TRAIN_MEMBERS[0]
WITHOUT_1 = {name: content for name, content in MEMBERS.items() if name != BATCH_1}


@pytest.mark.parametrize(
    ("members", "extra", "fault"),
    [
        (WITHOUT_1, (a_link(BATCH_1), b""), f"{BATCH_1} missing"),
        (
            WITHOUT_1,
            (a_link(BATCH_1, tarfile.LNKTYPE, cifar.TEST_MEMBER), b""),
            f"{BATCH_1} missing",
        ),
        (WITHOUT_1, (a_link(BATCH_1, tarfile.FIFOTYPE), b""), f"{BATCH_1} missing"),
        ({}, (a_link("cifar-10-batches-bin"), b""), f"{BATCH_1} missing"),
        (WITHOUT_1, None, f"{BATCH_1} missing"),
        (
            WITHOUT_1,
            (BATCH_1, BATCHES[0][:-1]),
            f"{BATCH_1} has 6,145 bytes, not the 6,146 of 2 images",
        ),
        (
            WITHOUT_1,
            (BATCH_1, b"\x0a" + BATCHES[0][1:]),
            "image 0 of its part has the label 10, not 0-9",
        ),
    ],
)
def test_other_archives_are_refused(tmp_path, members, extra, fault):
    if extra is not None:
        member, content = extra
        member = tarfile.TarInfo(member) if isinstance(member, str) else member
        extra = [(member, content)]
    path = make_tar(tmp_path / "a.tar.gz", members, extra or ())
    assert message(path, cifar.read_tar, path) == fault


def test_damaged_archives(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz")
    content = path.read_bytes()
    foreign = (b"", b"<!DOCTYPE html>" * 99, pickle.dumps(COUNTS), lzma.compress(TEST))
    for wrong in (*foreign, content[:9], content[:5000], content[: len(content) // 2]):
        path.write_bytes(wrong)
        said = message(path, cifar.read_tar, path)
        assert said.startswith("a damaged tar.gz file (") or said.endswith("missing")


# --- its files by themselves -----------------------------------------------------------------


def make_bin(folder, contents) -> list[Path]:
    paths = [folder / f"{key}.bin" for key in cifar.BIN_FILES]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def test_six_files(tmp_path):
    whole(cifar.read_bin(*make_bin(tmp_path, [*BATCHES, TEST]), counts=COUNTS))


@pytest.mark.parametrize(
    ("number", "content", "fault"),
    [
        (0, BATCHES[0][:-1], "6,145 bytes, not the 6,146 of 2 images"),
        (1, BATCHES[0] + b"x", "6,147 bytes, not the 6,146 of 2 images"),
        (4, b"", "0 bytes, not the 6,146 of 2 images"),
        (5, TEST[:3073], "3,073 bytes, not the 12,292 of 4 images"),
        (5, b"\xff" + TEST[1:], "image 0 of its part has the label 255, not 0-9"),
    ],
)
def test_other_files_are_refused(tmp_path, number, content, fault):
    contents = [*BATCHES, TEST]
    contents[number] = content
    paths = make_bin(tmp_path, contents)
    assert message(paths[number], cifar.read_bin, *paths) == fault


# --- both formats through the preparation ----------------------------------------------------


def pinned(files: dict, paths: list[Path]) -> dict:
    """The files of params.yaml with the sums of those at `paths`."""
    return {
        key: entry
        | {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for (key, entry), path in zip(files.items(), paths, strict=True)
    }


PACKED = {"archive": None, "members": ("", bytes), "members, xz": (".xz", lzma.compress)}
PACKED["members, gz"] = (".gz", gzip.compress)


@pytest.mark.parametrize("kind", PACKED)
def test_the_same_data_set_from_both_kinds_of_places(tmp_path, kind):
    """Through `fetch` itself: the archive of the origin or its members at a mirror."""
    spec = PARAMS["datasets"]["cifar10"]
    folder, mirror = tmp_path / "made", tmp_path / "mirror"
    folder.mkdir()
    archive, members = make_tar(folder / "all"), make_bin(folder, [*BATCHES, TEST])
    own = pinned(spec["files"], [archive])
    own["all"]["urls"] = [archive.as_uri()]  # the origin
    other = spec["alternative"] | {"files": pinned(spec["alternative"]["files"], members)}
    spec = spec | {"files": own, "alternative": other, "splits": COUNTS}
    if PACKED[kind]:
        end, pack = PACKED[kind]
        for entry, path in zip(other["files"].values(), members, strict=True):
            placed = mirror / (entry["path"] + end)
            placed.parent.mkdir(parents=True, exist_ok=True)
            placed.write_bytes(pack(path.read_bytes()))
        archive.unlink()  # it is not needed
    path = fetch("cifar10", spec, tmp_path, str(mirror) if PACKED[kind] else None)
    dataset = load("cifar10", COLOUR, tmp_path / "data")
    labels = {f"{split}_labels": array for split, array in dataset.labels.items()}
    whole({split: getattr(dataset, split) for split in COUNTS} | labels)
    assert np.load(path).files == ["train", "valid", "test", *labels]
    with pytest.raises(VlaeError, match="not uint8"):
        load("cifar10", FIXED, tmp_path / "data")


def test_too_few_images_for_five_batches(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz")
    with pytest.raises(VlaeError, match="9 training images are not 5 equal batches"):
        cifar.read_tar(path, counts=COUNTS | {"train": 6})


# --- the real files --------------------------------------------------------------------------


def test_real_files(tmp_path):
    """From the members, as published, to the arrays; and as the archive would give them."""
    spec = PARAMS["datasets"]["cifar10"]
    files = spec["alternative"]["files"]
    if not Path(MIRROR or "/nowhere", files["test"]["path"] + ".xz").is_file():
        pytest.skip("VLAE_DATA_MIRROR has no CIFAR-10")
    path = fetch("cifar10", spec, tmp_path, MIRROR)
    arrays = dict(np.load(path))
    counts = {key: len(a) for key, a in arrays.items()}
    assert counts == {f"{s}{e}": n for e in ("", "_labels") for s, n in spec["splits"].items()}
    images = np.concatenate([arrays["train"], arrays["valid"], arrays["test"]])
    labels = np.concatenate([arrays[f"{s}_labels"] for s in ("train", "valid", "test")])
    for number, md5 in enumerate(PUBLISHED_MD5):
        rows = slice(10_000 * number, 10_000 * (number + 1))
        content = cifar.records(images[rows], labels[rows])
        assert hashlib.md5(content).hexdigest() == md5
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PREPARED
    mean = images[:50_000].mean((0, 2, 3)) / 255  # red, green, blue
    assert mean == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
    # Upright: the sky is above, so the upper half is brighter, and more so in the blue.
    upper, lower = images[:, :, :16].mean((0, 2, 3)), images[:, :, 16:].mean((0, 2, 3))
    assert (upper - lower > 7).all() and np.argmax(upper - lower) == 2
