"""The figure of lossy files."""

import json

import numpy as np
import pytest

from miniature import small_params
from vlae.errors import VlaeError
from vlae.report.figures.image_grids import compose_grid
from vlae.report.figures.registry import build_figure, figure_inputs
from vlae.storage import paths

RUN = "static_mnist-vlae"
SHOWN = 16
OTHER = {"format": "WebP", "bytes_each": 120.4, "bytes_together": 60.2, "pixel_error": 0.004}


@pytest.fixture
def params(tmp_path):
    return small_params(tmp_path)


def write(root, arrays=None, **changes):
    record = {
        "run": RUN,
        "dataset": "static_mnist",
        "n_test": 1000,
        "bits": 20,
        "bits_per_image": 20.0,
        "kl_bits": 14.9,
        "pixel_error": 0.086,
        "file_bytes": 2541,
        "others": [OTHER, OTHER | {"format": "JPEG XL"}],
    }
    path = root / paths.lossy(RUN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | changes))
    random = np.random.default_rng(0)
    images = {
        "originals": random.integers(0, 2, (SHOWN, 28, 28), np.uint8),
        "draws": random.integers(0, 2, (3, SHOWN, 28, 28), np.uint8),
        "backs": random.integers(0, 256, (2, SHOWN, 28, 28), np.uint8),
    } | (arrays or {})
    np.savez(root / paths.lossy_images(RUN), **images)
    return images


def test_inputs(params):
    assert figure_inputs("lossy", params) == [
        f"results/lossy/{RUN}.json",
        f"results/lossy/{RUN}.npz",
    ]


def test_nothing_recorded(params, tmp_path):
    (axes,) = build_figure("lossy", params, tmp_path).axes
    assert axes.texts[0].get_text() == f"{RUN}: no codes sent"


def test_the_rows_are_the_recorded_images(params, tmp_path):
    images = write(tmp_path)
    figure = build_figure("lossy", params, tmp_path)
    rows = [axes.images[0].get_array() for axes in figure.axes]
    bits = [images["originals"], *images["draws"]]
    for row, expected in zip(rows[:4], bits, strict=True):
        assert np.array_equal(row, compose_grid(expected, SHOWN, 1))
    for row, expected in zip(rows[4:], images["backs"], strict=True):
        assert np.array_equal(row[1:29, 1:29], 255 - expected[0])
        assert np.array_equal(row[1:29, -29:-1], 255 - expected[-1])


def test_the_labels_say_the_bytes_and_do_not_overlap(params, tmp_path):
    write(tmp_path)
    figure = build_figure("lossy", params, tmp_path)
    text = "\n".join(text.get_text() for text in figure.texts)
    for said in ("2.5 bytes an image", "60 bytes an image", "120 bytes as a file", "8.6% of the"):
        assert said in text
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_records_that_cannot_be_used(params, tmp_path):
    write(tmp_path, {"draws": np.zeros((3, 5, 28, 28), np.uint8)})
    with pytest.raises(VlaeError, match="do not belong together"):
        build_figure("lossy", params, tmp_path)
    write(tmp_path, kl_bits="many")
    with pytest.raises(VlaeError, match="'kl_bits' must be float"):
        build_figure("lossy", params, tmp_path)
