"""The table of probes."""

import json

import pytest

from miniature import small_params
from recorded import write_evaluation
from vlae.errors import VlaeError
from vlae.report.tables.downstream import NUMBERS, build, probe_inputs
from vlae.storage import paths

RUN, SMALL = "static_mnist-vlae", "static_mnist-reach_0"
PROBED = dict.fromkeys(NUMBERS, 0.5)
ABOUT = {"n_train": 60, "n_test": 10, "data_sha256": "d", "labels_sha256": "l"}


def write(root, name, **changes):
    path = root / paths.probe(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = ABOUT | {"dataset": "static_mnist"} | changes
    path.write_text(json.dumps(record))


def write_run(root, run, dim, **changes):
    entropy = {"posterior_entropy": 70.0, "posterior_entropy_se": 0.1}
    record = {"run": run, "latent_dim": dim, "code": PROBED | {"linear": 0.9876}}
    record |= {"drawn": PROBED, "pca": PROBED | {"linear": dim / 100}} | entropy
    write(root, run, **(record | changes))


@pytest.fixture
def params(tmp_path):
    return small_params(tmp_path)


def test_inputs(params):
    inputs = probe_inputs(params)
    assert "results/probes/static_mnist.json" in inputs
    assert {f"results/probes/{RUN}.json", f"results/evaluations/{RUN}.json"} <= {*inputs}


def test_nothing_recorded(params, tmp_path):
    table = build(params, tmp_path)
    assert len(table.frame) == 0 and table.to_markdown() and table.to_latex() and table.to_html()


def test_runs_then_components_of_each_dimension_pixels_and_chance(params, tmp_path):
    write_run(tmp_path, RUN, 64)
    write_run(tmp_path, SMALL, 16)
    write_evaluation(tmp_path, RUN, kl=12.125)
    pixels = {"linear": 0.91, "linear_se": 0.01, "neighbours": 0.95, "neighbours_se": 0.01}
    write(tmp_path, "static_mnist", pixels=pixels, most_frequent=0.1135)
    table = build(params, tmp_path)
    frame = table.frame.set_index("features")
    assert list(frame.index) == [RUN, SMALL, "PCA, 16", "PCA, 64", "pixels", "chance"]
    assert frame.loc["PCA, 16", "linear"] == 0.16 and frame.loc["PCA, 64", "linear"] == 0.64
    assert frame.loc[RUN, "kl"] == 12.125 and frame.loc[RUN, "linear"] == 0.9876
    assert frame.loc["chance", "linear"] == 0.1135 and frame.loc["pixels", "dimension"] == 784
    text = table.to_markdown()
    assert "98.8 ± 50.0" in text and "11.3" in text and "12.12" in text
    assert table.to_latex() and table.to_html()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "caltech101"}, "is a record of dataset 'caltech101'"),
        ({"latent_dim": "64"}, "'latent_dim' must be int"),
        ({"code": PROBED | {"linear": None}}, r"'linear' must be float.*in 'code'"),
    ],
)
def test_a_record_that_cannot_be_used(params, tmp_path, changes, said):
    write_run(tmp_path, RUN, 64, **changes)
    with pytest.raises(VlaeError, match=said):
        build(params, tmp_path)
