"""CIFAR-10 from both kinds of files: pixels and labels in their places, or refused in a line."""

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

from vlae.data import cifar
from vlae.data.archives import ARCHIVES
from vlae.data.dataset import load
from vlae.data.fetch import fetch, prepare
from vlae.errors import VlaeError
from vlae.params import PART_FORMATS

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (14, 3, 32, 32), np.uint8)
LABELS = np.arange(14, dtype=np.uint8) % 10
COUNTS = {"train": 7, "valid": 3, "test": 4}
PARAMS = yaml.safe_load(Path(__file__).parents[1].joinpath("params.yaml").read_text())
MIRROR = os.environ.get("VLAE_DATA_MIRROR")


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
    with pytest.raises(VlaeError) as caught:
        read(*paths, counts=COUNTS)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


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


def a_link(name, kind=tarfile.SYMTYPE, to="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


BATCH_1 = cifar.TRAIN_MEMBERS[0]
WITHOUT_1 = {name: content for name, content in MEMBERS.items() if name != BATCH_1}


@pytest.mark.parametrize(
    ("members", "extra", "fault"),
    [
        (MEMBERS, ("/etc/passwd", b"x"), "the member '/etc/passwd' does not belong to CIFAR-10"),
        (MEMBERS, ("../x.bin", b"x"), "the member '../x.bin' does not belong to CIFAR-10"),
        (
            MEMBERS,
            ("cifar-10-batches-bin/../x\ny", b"x"),
            "the member 'cifar-10-batches-bin/../x\\ny' does not belong to CIFAR-10",
        ),
        (MEMBERS, (a_link("link"), b""), "the member 'link' does not belong to CIFAR-10"),
        (WITHOUT_1, (a_link(BATCH_1), b""), f"the member '{BATCH_1}' is not a regular file"),
        (
            WITHOUT_1,
            (a_link(BATCH_1, tarfile.LNKTYPE, cifar.TEST_MEMBER), b""),
            f"the member '{BATCH_1}' is not a regular file",
        ),
        (
            WITHOUT_1,
            (a_link(BATCH_1, tarfile.FIFOTYPE), b""),
            f"the member '{BATCH_1}' is not a regular file",
        ),
        (
            {},
            (a_link("cifar-10-batches-bin"), b""),
            "the member 'cifar-10-batches-bin' does not belong to CIFAR-10",
        ),
        (WITHOUT_1, None, f"{BATCH_1} missing"),
        (MEMBERS, (BATCH_1, BATCHES[0]), f"the member '{BATCH_1}' is there twice"),
        (
            WITHOUT_1,
            (BATCH_1, BATCHES[0][:-1]),
            f"the member '{BATCH_1}' has 6,145 bytes, not 6,146",
        ),
        (
            {},
            ("cifar-10-batches-bin/readme.html", bytes(10_001)),
            "the member 'cifar-10-batches-bin/readme.html' has 10,001 bytes, not at most 10,000",
        ),
        (
            WITHOUT_1,
            (BATCH_1, b"\x0a" + BATCHES[0][1:]),
            "image 0 of its part has the label 10, not 0-9",
        ),
    ],
)
def test_archives_that_are_not(tmp_path, members, extra, fault):
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


# --- the batches and the test images by themselves -------------------------------------------


def make_xz(folder, contents) -> list[Path]:
    paths = [folder / f"{key}.xz" for key in cifar.XZ_FILES]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(lzma.compress(content))
    return paths


def test_seven_files(tmp_path):
    for cut in (3073, 2 * 3073):
        paths = make_xz(tmp_path, [*BATCHES, TEST[:cut], TEST[cut:]])
        whole(cifar.read_xz(*paths, counts=COUNTS))


@pytest.mark.parametrize(
    ("number", "content", "fault"),
    [
        (0, BATCHES[0][:-1], "ends after 6,145 of 6,146 bytes"),
        (1, BATCHES[0] + b"x", "goes on after the last of 2 images"),
        (5, TEST[:3074], "3,074 bytes are no whole images of 3,073"),
        (5, TEST[:6146], "goes on after the last of 2 images"),
        (6, TEST[:3073], "ends after 3,073 of 9,219 bytes"),
        (6, b"\xff" + TEST[1 : 3 * 3073], "image 1 of its part has the label 255, not 0-9"),
    ],
)
def test_files_that_are_not(tmp_path, number, content, fault):
    contents = [*BATCHES, TEST[:3073], TEST[3073:]]
    contents[number] = content
    paths = make_xz(tmp_path, contents)
    at = paths[-1] if number == 5 and "goes on" in fault else paths[number]
    assert message(at, cifar.read_xz, *paths) == fault


def test_damaged_xz(tmp_path):
    paths = make_xz(tmp_path, [*BATCHES, TEST[:3073], TEST[3073:]])
    content = paths[2].read_bytes()
    flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    for wrong in (b"", b"<html>", content[:-1], content[:999], flipped):
        paths[2].write_bytes(wrong)
        assert message(paths[2], cifar.read_xz, *paths).startswith("not a complete xz file (")


# --- both formats through the preparation ----------------------------------------------------


def test_the_files_are_those_of_params():
    assert PART_FORMATS["cifar10_xz"] == cifar.XZ_FILES == ARCHIVES["cifar10_xz"].files
    assert ARCHIVES["cifar10_tar"].files == ("all",)


@pytest.mark.parametrize("name", ["cifar10", "cifar10_9980"])
def test_prepared_and_read_back(tmp_path, name):
    """Through `fetch` itself, from generated files in a mirror, and the same from both kinds."""
    spec = PARAMS["datasets"][name]
    folder = tmp_path / "raw"
    folder.mkdir()
    if name == "cifar10":
        paths = [make_tar(folder / "all")]
    else:
        paths = make_xz(folder, [*BATCHES, TEST[:3073], TEST[3073:]])
    files = {}
    for (key, entry), path in zip(spec["files"].items(), paths, strict=True):
        content = path.read_bytes()
        placed = tmp_path / "mirror" / entry["path"]
        placed.parent.mkdir(parents=True, exist_ok=True)
        placed.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files[key] = entry | {"sha256": sha256, "bytes": len(content), "urls": []}
    spec = spec | {"files": files, "splits": COUNTS}
    path = fetch(name, spec, tmp_path, str(tmp_path / "mirror"))
    dataset = load(name, "none", tmp_path / "data")
    labels = {f"{split}_labels": array for split, array in dataset.labels.items()}
    whole({split: getattr(dataset, split) for split in COUNTS} | labels)
    assert np.load(path).files == ["train", "valid", "test", *labels]
    with pytest.raises(VlaeError, match="holds test, test_labels, train"):
        load(name, "fixed", tmp_path / "data")


def test_too_few_images_for_five_batches(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz")
    with pytest.raises(VlaeError, match="9 training images are no 5 equal batches"):
        cifar.read_tar(path, counts=COUNTS | {"train": 6})


# --- the real files --------------------------------------------------------------------------


def test_real_files():
    """The bytes of the published members, images and labels in their places."""
    spec = PARAMS["datasets"]["cifar10_9980"]
    paths = {key: Path(MIRROR or "/nowhere", e["path"]) for key, e in spec["files"].items()}
    if not all(path.is_file() for path in paths.values()):
        pytest.skip("VLAE_DATA_MIRROR has no CIFAR-10")
    arrays = prepare("cifar10_9980", spec, paths)
    counts = {key: len(a) for key, a in arrays.items()}
    assert counts == {f"{s}{e}": n for e in ("", "_labels") for s, n in spec["splits"].items()}
    images = np.concatenate([arrays["train"], arrays["valid"]])
    labels = np.concatenate([arrays["train_labels"], arrays["valid_labels"]])
    # data_batch_1.bin and data_batch_5.bin, as their published sha256 has them.
    for batch, sha256 in (
        (0, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        (4, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ):
        rows = slice(10_000 * batch, 10_000 * (batch + 1))
        content = cifar.records(images[rows], labels[rows])
        assert hashlib.sha256(content).hexdigest() == sha256
    assert np.bincount(labels).tolist() == [5000] * 10
    assert np.bincount(arrays["test_labels"]).tolist() == [1000] * 7 + [999, 981, 1000]
    mean = images.mean((0, 2, 3)) / 255  # red, green, blue
    assert mean == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
    # Upright: the sky is above, so the upper half is brighter, and more so in the blue.
    upper, lower = images[:, :, :16].mean((0, 2, 3)), images[:, :, 16:].mean((0, 2, 3))
    assert (upper - lower > 7).all() and np.argmax(upper - lower) == 2
