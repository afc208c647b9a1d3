"""Labels are those of the images, in their order, or the file is refused."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml

from miniature import PROJECT
from refusal import refusal
from vlae.data.fetch import fetch
from vlae.data.formats import mnist_labels, omniglot
from vlae.data.formats.idx import parse_idx, write_idx
from vlae.data.formats.matlab import read_silhouette_labels
from vlae.data.formats.registry import FORMATS, LABEL_FORMATS
from vlae.data.labels import fetch_labels, labels_recipe, load_labels, prepare_labels
from vlae.errors import VlaeError

PARAMS = yaml.safe_load((PROJECT / "params.yaml").read_text())
MIRROR = os.environ.get("VLAE_DATA_MIRROR")
COUNTS = {"train": 5, "valid": 3, "test": 4}


def drawings_of(count, seed=3):
    """Grey images of random squares, and bits drawn from them."""
    random = np.random.default_rng(seed)
    grey = random.integers(0, 256, (count, 14, 14), np.uint8).repeat(2, 1).repeat(2, 2)
    return grey, (random.random(grey.shape) * 255 < grey).astype(np.uint8)


def test_idx_labels_are_the_published_format(tmp_path):
    raw = {"labels_train": tmp_path / "a", "labels_test": tmp_path / "b"}
    raw["labels_train"].write_bytes(struct.pack(">2I", 0x801, 8) + bytes([5, 0, 4, 1, 9, 2, 1, 3]))
    raw["labels_test"].write_bytes(struct.pack(">2I", 0x801, 4) + bytes([7, 2, 1, 0]))
    labels = mnist_labels.read(raw, {"splits": COUNTS})
    assert {split: values.tolist() for split, values in labels.items()} == {
        "train": [5, 0, 4, 1, 9],
        "valid": [2, 1, 3],
        "test": [7, 2, 1, 0],
    }
    write_idx(raw["labels_test"], np.zeros((4, 28, 28), np.uint8))
    said = refusal(raw["labels_test"], mnist_labels.read, raw, {"splits": COUNTS})
    assert said == "holds uint8 (4, 28, 28), not uint8 (4,)"


def test_the_image_that_bits_were_drawn_from():
    grey, bits = drawings_of(1200)
    order = np.random.default_rng(0).permutation(len(grey))
    assert np.array_equal(mnist_labels.drawn_from(bits[order], grey), order)


def test_images_that_are_the_same_are_assigned_one_to_one():
    grey, bits = drawings_of(400)
    grey[7], bits[7] = grey[3], bits[3]
    order = mnist_labels.drawn_from(bits, grey)
    assert np.array_equal(np.sort(order), np.arange(400))
    assert {order[3], order[7]} == {3, 7}


@pytest.mark.parametrize(
    ("count", "said"), [(99, "100 images cannot be drawn from 99"), (100, "no grey image of")]
)
def test_images_of_other_grey_ones_are_refused(count, said):
    grey, _ = drawings_of(count, seed=4)
    with pytest.raises(ValueError, match=said):
        mnist_labels.drawn_from(drawings_of(100)[1], grey)


def test_labels_of_silhouettes_count_from_one_in_the_file(tmp_path):
    path = tmp_path / "a.mat"
    labels = {"train_labels": [1, 2, 101, 4, 5], "val_labels": [7, 1, 9], "test_labels": [1] * 4}
    table = {key: np.array(row, np.uint8)[:, None] for key, row in labels.items()}
    scipy.io.savemat(path, table)
    read = read_silhouette_labels(path, COUNTS)
    assert read["train"].tolist() == [0, 1, 100, 3, 4] and read["valid"].tolist() == [6, 0, 8]
    scipy.io.savemat(path, table | {"val_labels": np.zeros((3, 1), np.uint8)})
    assert refusal(path, read_silhouette_labels, path, COUNTS).startswith("val_labels has the val")


def test_alphabets_are_those_of_the_images(tmp_path):
    """Each drawing is noise of its own, by which its image is found again."""
    drawings = omniglot.example(Glagolitic=1, Braille=2, Angelic=1)
    omniglot.write_npz(tmp_path / "a.npz", drawings)
    counts = {"train": 54, "valid": 6, "test": 19}
    images = omniglot.read_lake_npz(tmp_path / "a.npz", counts)
    labels = omniglot.read_lake_npz_labels(tmp_path / "a.npz", counts)
    grey = np.rint(255 * omniglot.resized(drawings.images)).astype(np.uint8)
    alphabet = {image.tobytes(): name for image, name in zip(grey, drawings.alphabet, strict=True)}
    for split, array in images.items():
        names = [omniglot.ALPHABETS[number] for number in labels[split]]
        assert names == [alphabet[image.tobytes()] for image in array]
    assert len(set(labels["train"])) == 3


@pytest.mark.parametrize("name", PARAMS["labels"])
def test_every_format_of_labels_fits_its_images(name, tmp_path):
    spec = PARAMS["datasets"][name]
    for form in {spec["format"], spec.get("alternative", spec)["format"]}:
        raw = {key: tmp_path / key for key in LABEL_FORMATS[form].needed}
        counts = LABEL_FORMATS[form].example(raw, spec)
        labels = LABEL_FORMATS[form].read(raw, spec | {"splits": counts})
        assert {split: len(values) for split, values in labels.items()} == counts
        assert all(values.dtype == np.uint8 for values in labels.values())
        images = {key: tmp_path / f"images_{key}" for key in FORMATS[form].needed}
        if "valid" in spec.get("files", {}):
            images["valid"] = tmp_path / "images_valid"
        assert FORMATS[form].example(images, spec) == counts
    recipe = labels_recipe(name, spec, PARAMS["labels"][name])
    if "alternative" in recipe:
        assert recipe["alternative"]["sha256"] == recipe["sha256"]


def test_labels_that_are_no_class_are_refused(tmp_path):
    raw = {key: tmp_path / key for key in mnist_labels.FILES}
    mnist_labels.example(raw, {})
    spec = {"format": "idx", "splits": COUNTS, "classes": 4}
    with pytest.raises(VlaeError, match=r"train has the label 4; labels\.mine\.classes says"):
        prepare_labels("mine", spec, raw)


def test_a_file_of_labels_that_cannot_be_used(tmp_path):
    path = tmp_path / "data" / "labels" / "mine.npz"
    with pytest.raises(VlaeError, match=r"mine\.npz is missing; run `vlae labels mine`"):
        load_labels("mine", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK")
    with pytest.raises(VlaeError, match=r"cannot be used: .*run `vlae labels mine` again"):
        load_labels("mine", tmp_path)
    np.savez(path, train_labels=np.zeros(3))
    with pytest.raises(VlaeError, match="train_labels is not uint8"):
        load_labels("mine", tmp_path)


# --- The real files --------------------------------------------------------------------------


def real(name, tmp_path):
    files = PARAMS["labels"][name].get("files") or PARAMS["datasets"][name].get("files")
    files = PARAMS["datasets"][name].get("alternative", {"files": files})["files"]
    for file in files.values():
        found = [Path(MIRROR or "/nowhere", file["path"] + end) for end in ("", ".gz", ".xz")]
        if not any(path.is_file() for path in found):
            pytest.skip(f"VLAE_DATA_MIRROR has no {file['path']}")
    block = PARAMS["labels"][name]
    return block, PARAMS["datasets"][name]


@pytest.mark.parametrize("name", ["dynamic_mnist", "omniglot_rebuilt", "caltech101"])
def test_real_labels(name, tmp_path):
    block, spec = real(name, tmp_path)
    fetch_labels(name, spec, block, tmp_path, MIRROR)
    labels = load_labels(name, tmp_path)
    assert {split: len(values) for split, values in labels.items()} == spec["splits"]
    for split in ("train", "test"):
        assert set(labels[split]) == set(range(block["classes"]))


def test_real_bits_were_drawn_from_the_grey_images_of_the_same_digits(tmp_path):
    """Larochelle's test images are sorted by digit, which nothing in the search knows."""
    real("static_mnist", tmp_path)
    for name in ("static_mnist", "dynamic_mnist"):
        fetch(name, PARAMS["datasets"][name], tmp_path, MIRROR)
    fetch_labels(
        "dynamic_mnist",
        PARAMS["datasets"]["dynamic_mnist"],
        PARAMS["labels"]["dynamic_mnist"],
        tmp_path,
        MIRROR,
    )
    bits, grey = (
        np.load(tmp_path / "data" / f"{name}.npz")["test"]
        for name in ("static_mnist", "dynamic_mnist")
    )
    labels = load_labels("dynamic_mnist", tmp_path)["test"]
    order = mnist_labels.drawn_from(bits, grey)
    assert np.array_equal(order, np.argsort(labels, kind="stable"))


@pytest.mark.skipif(
    not (PROJECT / "data/labels/static_mnist.npz").exists(), reason="no labels prepared"
)
def test_real_training_labels_of_static_mnist(tmp_path):
    """As many of each digit as MNIST has, and images like those of MNIST with that digit."""
    real("static_mnist", tmp_path)
    raw = PROJECT / "data" / "raw" / "mnist"
    digits = parse_idx((raw / "train-labels-idx1-ubyte").read_bytes())
    grey = parse_idx((raw / "train-images-idx3-ubyte").read_bytes())[:5000].reshape(5000, -1) / 255
    labels = load_labels("static_mnist", PROJECT)
    both = np.concatenate([labels["train"], labels["valid"]])
    assert np.array_equal(np.bincount(both), np.bincount(digits))
    bits = np.load(PROJECT / "data" / "static_mnist.npz")["train"][::100].reshape(500, -1)
    distance = (grey**2).sum(1) - 2 * bits @ grey.T
    assert (digits[distance.argmin(1)] == labels["train"][::100]).mean() > 0.85
