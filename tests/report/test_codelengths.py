"""The table of code lengths."""

import json
import math

import pytest

from miniature import small_params
from recorded import write_evaluation
from vlae.errors import VlaeError
from vlae.report.tables.codelengths import build, length_inputs
from vlae.storage import paths

RUN, OTHER = "static_mnist-vlae", "dynamic_mnist-pixelcnn"
SPEEDS = {"encode_images_per_second": 100.0, "decode_images_per_second": 50.0}
PNG = {"format": "PNG", "of": "each", "bytes": 900, "bits_per_image": 720.0} | SPEEDS


def write(root, run, bits=117.0, **changes):
    path = root / paths.codelength(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "run": run,
        "dataset": "static_mnist",
        "n_test": 10,
        "file_bytes": 200,
        "bits_per_image": bits,
        "hardware": "1 core",
        "others": [PNG],
    }
    path.write_text(json.dumps(record | SPEEDS | changes))


@pytest.fixture
def params(tmp_path):
    return small_params(tmp_path)


def test_inputs_are_the_records_and_evaluations(params):
    assert f"results/codelengths/{RUN}.json" in length_inputs(params)
    assert f"results/evaluations/{RUN}.json" in length_inputs(params)


def test_nothing_recorded(params, tmp_path):
    table = build(params, tmp_path)
    assert len(table.frame) == 0 and table.to_markdown() and table.to_latex()


def test_the_bound_of_the_same_images(params, tmp_path):
    write(tmp_path, RUN)
    write(tmp_path, OTHER, 120.0)
    elbo = -116.0 * math.log(2)
    write_evaluation(tmp_path, RUN, elbo=elbo, n_test=10)
    write_evaluation(tmp_path, OTHER, elbo=elbo, n_test=10)  # of another data set
    frame = build(params, tmp_path).frame.set_index("method")
    assert list(frame.index) == [RUN, OTHER, "PNG"]  # the format once
    assert frame.loc[RUN, "bound_bits"] == pytest.approx(116)
    assert frame.loc[RUN, "over_bound"] == pytest.approx(1 / 116)
    assert math.isnan(frame.loc[OTHER, "bound_bits"])
    assert list(frame["of"]) == ["bits-back", "pixel by pixel", "each"]
    assert "+0.86" in build(params, tmp_path).to_markdown()


def test_an_evaluation_of_other_images_is_no_bound(params, tmp_path):
    write(tmp_path, RUN)
    write_evaluation(tmp_path, RUN, elbo=-80.0, n_test=11)
    assert build(params, tmp_path).frame["bound_bits"].isna().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "omniglot"}, "is a record of dataset 'omniglot'"),
        ({"bits_per_image": "few"}, "'bits_per_image' must be float"),
        ({"others": [PNG | {"bytes": None}]}, "'bytes' must be int"),
    ],
)
def test_a_record_that_cannot_be_used(params, tmp_path, changes, said):
    write(tmp_path, RUN, **changes)
    with pytest.raises(VlaeError, match=said):
        build(params, tmp_path)
