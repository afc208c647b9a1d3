"""Data sets in one file: upright, of the right polarity, divided as documented, or refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml

from refusal import refusal
from vlae.data.formats.matlab import (
    read_chardata,
    read_silhouettes,
    write_chardata,
    write_silhouettes,
)
from vlae.data.formats.registry import read

RANDOM = np.random.default_rng(5)
BITS = {
    s: RANDOM.integers(0, 2, (n, 28, 28), np.uint8)
    for s, n in (("train", 5), ("valid", 3), ("test", 4))
}
COUNTS = {split: len(images) for split, images in BITS.items()}
GREYS = RANDOM.integers(0, 256, (12, 28, 28), np.uint8)
MIRROR = os.environ.get("VLAE_DATA_MIRROR")


def an_l() -> np.ndarray:
    """The letter L, upright: a stroke down the left side and one along the bottom."""
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 6:9] = 1
    image[21:24, 6:18] = 1
    return image


def message(read, path, counts) -> str:
    return refusal(path, read, path, counts)


# --- Caltech-101 Silhouettes -----------------------------------------------------------------


def test_silhouettes_are_stored_by_columns_and_with_the_object_0(tmp_path):
    """Against the format spelled out, not against the writer."""
    row = np.ones(784, np.uint8)
    for r, c in zip(*np.nonzero(an_l()), strict=True):
        row[c * 28 + r] = 0
    table = {f"{split}_data": np.stack([row] * 2) for split in ("train", "val", "test")}
    scipy.io.savemat(tmp_path / "a.mat", table | {"train_labels": np.ones((2, 1))})
    arrays = read_silhouettes(tmp_path / "a.mat", dict.fromkeys(COUNTS, 2))
    for images in arrays.values():
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        assert np.array_equal(images, [an_l()] * 2)


def test_silhouettes_written_are_read(tmp_path):
    write_silhouettes(tmp_path / "a.mat", BITS)
    arrays = read_silhouettes(tmp_path / "a.mat", COUNTS)
    assert all(np.array_equal(arrays[split], BITS[split]) for split in BITS)


def silhouettes(**changes) -> dict:
    table = {"train_data": (5, 784), "val_data": (3, 784), "test_data": (4, 784)}
    return {key: np.ones(shape, np.uint8) for key, shape in table.items()} | changes


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"train_data": np.ones((6, 784), np.uint8)}, "train_data is uint8 (6, 784) instead of"),
        ({"val_data": np.ones((784, 3), np.uint8)}, "val_data is uint8 (784, 3) instead of"),
        ({"test_data": np.ones((4, 784))}, "test_data is float64 (4, 784) instead of uint8"),
        ({"test_data": np.full((4, 784), 2, np.uint8)}, "test_data has the value 2, not only"),
        ({"test_data": None}, "test_data missing"),
        ({"test_data": "text"}, "test_data is <U4 (1,) instead of"),
    ],
)
def test_wrong_silhouettes_are_refused(tmp_path, changes, fault):
    table = {key: value for key, value in silhouettes(**changes).items() if value is not None}
    scipy.io.savemat(tmp_path / "a.mat", table)
    assert message(read_silhouettes, tmp_path / "a.mat", COUNTS).startswith(fault)


# --- OMNIGLOT of Burda et al. ----------------------------------------------------------------


def test_chardata_is_stored_by_columns(tmp_path):
    column = np.zeros(784)
    for r, c in zip(*np.nonzero(an_l()), strict=True):
        column[c * 28 + r] = 0.6
    table = {"data": np.stack([column] * 3, axis=1), "testdata": np.stack([column] * 2, axis=1)}
    scipy.io.savemat(tmp_path / "a.mat", table | {"target": np.zeros((50, 3))})
    arrays = read_chardata(tmp_path / "a.mat", {"train": 2, "valid": 1, "test": 2})
    for images in arrays.values():
        assert images.dtype == np.uint8
        assert np.array_equal(images, [153 * an_l()] * len(images))  # 0.6 x 255


def test_chardata_holds_out_the_last_of_the_shuffle(tmp_path):
    write_chardata(tmp_path / "a.mat", GREYS[:8], GREYS[8:])
    arrays = read_chardata(tmp_path / "a.mat", COUNTS)
    assert np.array_equal(arrays["test"], GREYS[8:])
    order = np.random.RandomState(123).permutation(8)
    assert order.tolist() == [0, 1, 3, 7, 4, 2, 5, 6]  # the same in every version of numpy
    assert np.array_equal(arrays["train"], GREYS[order[:5]])
    assert np.array_equal(arrays["valid"], GREYS[order[5:]])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"data": np.zeros((784, 7))}, "data is float64 (784, 7) instead of float64 (784, 8)"),
        ({"data": np.zeros((8, 784))}, "data is float64 (8, 784) instead of float64 (784, 8)"),
        ({"data": np.zeros((784, 8), np.uint8)}, "data is uint8 (784, 8) instead of float64"),
        ({"testdata": np.full((784, 4), 255.0)}, "testdata has values from 255 to 255, not in"),
        ({"testdata": np.full((784, 4), -0.1)}, "testdata has values from -0.1 to -0.1, not in"),
        ({"testdata": np.full((784, 4), np.nan)}, "testdata has values from nan to nan, not in"),
        ({"testdata": None}, "testdata missing"),
    ],
)
def test_wrong_chardata_is_refused(tmp_path, changes, fault):
    table = {"data": np.zeros((784, 8)), "testdata": np.zeros((784, 4))} | changes
    table = {key: value for key, value in table.items() if value is not None}
    scipy.io.savemat(tmp_path / "a.mat", table)
    assert message(read_chardata, tmp_path / "a.mat", COUNTS).startswith(fault)


def test_files_that_are_not_matlab_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    write_silhouettes(path, BITS)
    whole = path.read_bytes()
    foreign = {
        "empty": b"",
        "a page": b"<!DOCTYPE html><html></html>" * 99,
        "a pickle": pickle.dumps(silhouettes()),
        "version 7.3": b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" * 99,
        "cut in the header": whole[:127],
        "cut": whole[: len(whole) // 2],
    }
    for name, content in foreign.items():
        path.write_bytes(content)
        assert message(read_silhouettes, path, COUNTS).startswith("not a usable MATLAB 5"), name


# --- The real files --------------------------------------------------------------------------


def real(name: str) -> dict:
    spec = yaml.safe_load(Path(__file__).parents[3].joinpath("params.yaml").read_text())
    spec = spec["datasets"][name]
    path = Path(MIRROR or "/nowhere", spec["files"]["all"]["path"])
    if not path.is_file():
        pytest.skip(f"VLAE_DATA_MIRROR has no {spec['files']['all']['path']}")
    return read(spec, {"all": path})


def test_real_silhouettes():
    arrays = real("caltech101")
    assert {split: len(images) for split, images in arrays.items()} == {
        "train": 4100,
        "valid": 2264,
        "test": 2307,
    }
    # The object stands in the middle, and has to be what is 1; the corners are background.
    for split, mean in (("train", 0.4489), ("valid", 0.4640), ("test", 0.4610)):
        images = arrays[split]
        assert images.mean() == pytest.approx(mean, abs=1e-4)
        assert images[:, 12:16, 12:16].mean() > 0.8 > 0.3 > images[:, ::27, ::27].mean()
        # Upright: things are alike on the left and the right, and wider at the bottom.
        left, right = images[:, :, :7].mean(), images[:, :, 21:].mean()
        top, bottom = images[:, :7].mean(), images[:, 21:].mean()
        assert bottom - top > 1.5 * abs(left - right)


def test_real_chardata():
    arrays = real("omniglot")
    assert {split: len(images) for split, images in arrays.items()} == {
        "train": 23000,
        "valid": 1345,
        "test": 8070,
    }
    assert 0.02 < arrays["test"].mean() / 255 < 0.3  # ink, not paper, is what is bright
