"""The prepared file: what is accepted, and what is said of anything else."""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.images import DYNAMIC, FIXED
from vlae.storage.write import write_npz


def splits(high=2):
    draw = np.random.default_rng(3)
    counts = {"train": 5, "valid": 3, "test": 4}
    return {s: draw.integers(0, high, (n, 28, 28), np.uint8) for s, n in counts.items()}


def message(tmp_path, kind=FIXED):
    with pytest.raises(VlaeError) as caught:
        load("tiny", kind, tmp_path)
    text = str(caught.value)
    assert str(tmp_path / "tiny.npz") in text and "vlae fetch tiny" in text and "\n" not in text
    return text


@pytest.mark.parametrize(("kind", "high"), [(FIXED, 2), (DYNAMIC, 256)])
def test_what_was_written_is_read(tmp_path, kind, high):
    arrays = splits(high)
    path = tmp_path / "tiny.npz"
    write_npz(path, **arrays)
    dataset = load("tiny", kind, tmp_path)
    assert (dataset.name, dataset.kind) == ("tiny", kind)
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for split, array in arrays.items():
        got = getattr(dataset, split)
        assert got.dtype == np.uint8 and np.array_equal(got, array)
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"


def test_the_bytes_are_the_same_everywhere(tmp_path):
    """Other bytes here would be another data set to everything that records its sha256."""
    counts = {"train": 5, "valid": 3, "test": 4}
    arrays = {split: np.full((n, 28, 28), n % 4, np.uint8) for split, n in counts.items()}
    for name in ("one.npz", "two.npz"):
        write_npz(tmp_path / name, **arrays)
        sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert sha256 == "301cf12c1041b4d6f7161798ac045fb11b12d0a2ff6a7bd40329ff383d82964e"


def test_missing(tmp_path):
    assert "is missing; run `vlae fetch tiny`" in message(tmp_path)


def without(arrays, split):
    return {s: a for s, a in arrays.items() if s != split}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda a: without(a, "valid"), "holds test, train, not train, valid, test"),
        (lambda a: a | {"labels": a["test"]}, "holds labels, test, train, valid"),
        (lambda a: a | {"train": a["train"].astype(np.float32)}, "train is float32 (5, 28, 28)"),
        (lambda a: a | {"test": a["test"].reshape(4, 784)}, "test is uint8 (4, 784)"),
        (lambda a: a | {"test": a["test"][:0]}, "test is uint8 (0, 28, 28)"),
        (lambda a: a | {"valid": np.uint8(1)}, "valid is uint8 ()"),
        (lambda a: a | {"valid": a["valid"] * 2}, "valid has the value 2, so it is not binarized"),
        (lambda a: a | {"test": np.array([{}])}, "Object arrays cannot be loaded"),
    ],
)
def test_wrong_arrays(tmp_path, change, fault):
    np.savez(tmp_path / "tiny.npz", **change(splits()))
    assert fault in message(tmp_path)


def test_grey_values_are_no_fixed_binarization(tmp_path):
    write_npz(tmp_path / "tiny.npz", **splits(256))
    load("tiny", DYNAMIC, tmp_path)
    assert "not binarized" in message(tmp_path)


def test_damaged_files(tmp_path):
    path = tmp_path / "tiny.npz"
    single = io.BytesIO()
    np.save(single, splits()["test"])
    write_npz(path, **splits())
    whole = path.read_bytes()
    # Nobody here writes compressed ones, but numpy reads them.
    np.savez_compressed(path, **splits())
    compressed = path.read_bytes()
    start = compressed.index(b"train.npy") + len("train.npy") + 20  # past the header's extras
    damaged = compressed[:start] + b"\xff" * 9 + compressed[start + 9 :]
    foreign = (b"", b"<html>", b"\x80\x04K\x01.", single.getvalue())
    for content in (*foreign, whole[:-1], whole[:999], damaged):
        path.write_bytes(content)
        assert "cannot be used" in message(tmp_path)
    path.unlink()
    path.mkdir()
    assert "Is a directory" in message(tmp_path)


def test_any_damaged_byte_is_an_error_of_ours_or_harmless(tmp_path):
    """Never another exception; and never other pixels, which the archive's checksums cover."""
    path = tmp_path / "tiny.npz"
    arrays = splits()
    write_npz(path, **arrays)
    whole = path.read_bytes()
    refused = 0
    # The first member's header, the directory at the end, and some of all the rest.
    step = [*range(200), *range(200, len(whole) - 300, 199), *range(len(whole) - 300, len(whole))]
    for at in step:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            dataset = load("tiny", DYNAMIC, tmp_path)
        except VlaeError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            for split, array in arrays.items():
                assert np.array_equal(getattr(dataset, split), array)
    assert refused > len(step) / 3


def test_the_data_package_starts_without_torch_and_network_libraries():
    heavy = "{'torch', 'truststore', 'requests', 'tqdm', 'pandas', 'matplotlib'}"
    code = (
        f"import sys, vlae.data.fetch, vlae.data.dataset;print(sorted({heavy} & set(sys.modules)))"
    )
    sources = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=sources, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
