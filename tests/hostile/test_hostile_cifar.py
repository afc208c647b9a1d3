"""CIFAR-10 files that are damaged or foreign: images, or one line that says what is wrong."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import FOREIGN, attempt, cases, empty_folder, hostile
from vlae.data.formats import cifar
from vlae.errors import VlaeError


def examples() -> tuple[bytes, list[bytes], dict[str, int], dict[str, dict]]:
    """The content of a small archive and of six small files, and what is in both."""
    with empty_folder() as folder:
        counts = cifar.example_tar(folder / "tar.gz")
        paths = [folder / key for key in cifar.BIN_FILES]
        cifar.example_bin(*paths)
        arrays = cifar.read_tar(folder / "tar.gz", counts)
        return (folder / "tar.gz").read_bytes(), [p.read_bytes() for p in paths], counts, arrays


TAR_GZ, BIN, COUNTS, TRUE = examples()


def checked(outcome):
    """An outcome that is not a refusal is images and labels."""
    if not isinstance(outcome, VlaeError):
        for split, count in COUNTS.items():
            images, labels = outcome[split], outcome[f"{split}_labels"]
            assert images.shape == (count, 3, 32, 32) and labels.shape == (count,)
            assert images.dtype == labels.dtype == np.uint8 and labels.max() < 10
    return outcome


def read_tar(content: bytes):
    with empty_folder() as folder:
        path = folder / "cifar.tar.gz"
        path.write_bytes(content)
        return checked(attempt("data file, cifar10_tar", folder, cifar.read_tar, path, COUNTS))


def read_bin(contents: list[bytes]):
    def read(*paths):
        return cifar.read_bin(*paths, counts=COUNTS)

    with empty_folder() as folder:
        paths = [folder / key for key in cifar.BIN_FILES]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return checked(attempt("data file, cifar10_bin", folder, read, *paths))


@cases(60)
@given(content=hostile(TAR_GZ))
def test_damaged_archives(content):
    read_tar(content)


@cases(60)
@given(data=st.data())
def test_damaged_batches(data):
    which = data.draw(st.integers(0, len(BIN) - 1))
    read_bin([*BIN[:which], data.draw(hostile(BIN[which])), *BIN[which + 1 :]])


def test_foreign_files_are_refused():
    for content in FOREIGN:
        assert isinstance(read_tar(content), VlaeError)
        assert isinstance(read_bin([content, *BIN[1:]]), VlaeError)
