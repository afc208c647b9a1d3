"""Files of arrays: what is written is read, and no file unpacks to more memory than expected."""

import zipfile

import numpy as np
import pytest

from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.records import MOST_ARRAYS, read_samples
from vlae.storage.write import write_npz, write_npz_compressed

RUN = "static_mnist-vlae"


def images():
    draw = np.random.default_rng(5)
    names = ("originals", "decompressions", "samples")
    arrays = {name: draw.integers(0, 2, (4, 28, 28), np.uint8) for name in names}
    return arrays | {"originals_index": np.arange(4, dtype=np.int32), "sample_seed": np.array(7)}


@pytest.mark.parametrize(
    ("write", "method"),
    [(write_npz, zipfile.ZIP_STORED), (write_npz_compressed, zipfile.ZIP_DEFLATED)],
)
def test_numpy_reads_what_was_written(tmp_path, write, method):
    path = tmp_path / "images.npz"
    arrays = images()
    write(path, **arrays)
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == list(arrays)
        for name, array in arrays.items():
            assert archive[name].dtype == array.dtype and np.array_equal(archive[name], array)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {method}


def test_compressed_images_are_read(tmp_path):
    path = tmp_path / paths.samples(RUN)
    write_npz_compressed(path, **images())
    assert path.stat().st_size < sum(array.nbytes for array in images().values()) / 2
    for name, array in read_samples(tmp_path, RUN).items():
        assert np.array_equal(array, images()[name])


def test_a_file_that_unpacks_to_too_much(tmp_path):
    path = tmp_path / paths.samples(RUN)
    huge = np.zeros(MOST_ARRAYS // 28**2 + 1, np.dtype((np.uint8, (28, 28))))
    write_npz_compressed(path, **images() | {"samples": huge})
    assert path.stat().st_size < MOST_ARRAYS / 500
    with pytest.raises(VlaeError) as caught:
        read_samples(tmp_path, RUN)
    text = str(caught.value)
    assert text.startswith(f"{path}: not a file of samples: unpacks to") and "\n" not in text
