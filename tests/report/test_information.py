"""The table and the figure of information preference: windows counted, numbers in place."""

import json
import math

import pytest

from recorded import write_evaluation, write_samples, write_training
from vlae import one_bit
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.nn.pixelcnn import PixelCNN
from vlae.report.figures.registry import build_figure, figure_inputs
from vlae.report.tables.information import NAME, READ, SERIES, points, window
from vlae.report.tables.registry import build_table, table_inputs
from vlae.storage import paths
from vlae.storage.records import evaluation_file, read_samples

SMALL, TOY = "static_mnist-reach_3", "one_bit-reach_3"


@pytest.fixture(scope="module")
def real(request):
    return load_params(request.config.rootpath / "params.yaml")


def test_windows_are_those_of_the_networks(real):
    """Pixels far and pixels in all, against the network's own weights."""
    reaches = {series: [] for series in SERIES}
    for point in points(real):
        reaches[point.series].append(point.reach)
        d = point.run.model.decoder
        if d.kind == "factorized":
            assert (point.reach, point.pixels) == (0, 0) and not window(d)
            continue
        seen = PixelCNN(
            1, 2, d.first_kernel, d.masked_blocks, d.pointwise_blocks, d.tied, d.last_masked
        ).context_pixels()
        assert point.pixels == len(seen)
        assert point.reach == max(max(abs(r), abs(c)) for r, c in seen)
        if point.series != "full size":
            assert point.run.name.removesuffix("_no_free_bits").endswith(f"reach_{point.reach}")
    for series in SERIES[:2]:
        assert reaches[series] == [0, 1, 3, 5, 9, 27]
    assert reaches["one global bit"] == [1, 2, 3, 4, 28]
    assert reaches["full size"] == [0, 6, 6, 15]


def test_small_networks_differ_in_their_decoder_only(real):
    series = {name: [p.run for p in points(real) if p.series == name] for name in SERIES}
    for name, free in ((SERIES[0], 7.84), (SERIES[1], 0)):
        for run in series[name]:
            assert (run.training.free_bits, run.training.split) == (free, "train")
            first = series[name][0]
            assert (run.model.prior, run.model.trunk_maps) == (
                first.model.prior,
                first.model.trunk_maps,
            )
            assert (run.training, run.evaluation) == (first.training, first.evaluation)


def test_rows_by_hand(tmp_path, real):
    for run in (SMALL, TOY):
        write_training(tmp_path, run, epochs=6)
        write_evaluation(tmp_path, run, 91.5, kl=10.5, kl_se=0.125)
    frame = build_table(NAME, real, tmp_path).frame.set_index("run")
    assert tuple(frame.loc[SMALL, ["nll", "kl", "kl_se", "reach"]]) == (91.5, 10.5, 0.125, 3)
    assert tuple(frame.loc[TOY, ["exact_nll", "exact_kl"]]) == (22 * math.log(2), math.log(2))
    assert frame.loc["one_bit-reach_4", "exact_kl"] == 0
    assert frame.loc["one_bit-reach_4", "gaussian_kl"] == 0
    assert frame.loc[TOY, "gaussian_kl"] == pytest.approx(one_bit.gaussian_code(3)[1])
    assert frame.loc["one_bit-reach_4", "note"] == "not trained"
    assert frame.loc[SMALL, "exact_kl"] is None
    axes = build_figure(NAME, real, tmp_path).axes
    drawn = [line.get_xydata().tolist() for line in axes[1].lines]
    assert [[2.0, 10.5]] in drawn  # log2(1 + 3)


def test_inputs_are_the_same_for_table_and_figure(real):
    inputs = table_inputs(NAME, real)
    assert inputs == figure_inputs(NAME, real)
    assert str(evaluation_file(SMALL)) in inputs


def test_an_evaluation_that_cannot_be_used_is_named(tmp_path, real):
    write_training(tmp_path, SMALL)
    write_evaluation(tmp_path, SMALL, kl="much")
    with pytest.raises(VlaeError, match=rf"{SMALL}.json: 'kl' must be float"):
        build_table(NAME, real, tmp_path)


def test_what_is_read_comes_from_a_drawn_code(tmp_path, real):
    write_training(tmp_path, SMALL)
    write_evaluation(tmp_path, SMALL)
    write_samples(tmp_path, SMALL)
    numbers = {f"{key}{end}": 0.5 for key in READ.values() for end in ("", "_se")}
    record = {"run": SMALL, "dataset": "static_mnist", "code": {}, "drawn": numbers}
    path = tmp_path / paths.probe(SMALL)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | {"drawn": numbers | {"linear": 0.75}}))
    row = build_table(NAME, real, tmp_path).frame.set_index("run").loc[SMALL]
    assert (row["digit"], row["digit_se"], row["slant"]) == (0.75, 0.5, 0.5)
    images = read_samples(tmp_path, SMALL)
    changed = (images["originals"] != images["decompressions"]).sum((1, 2))
    assert row["changed"] == pytest.approx(changed.mean())
    drawn = build_figure("rate", real, tmp_path).axes[0].lines[0].get_xydata().tolist()
    assert drawn == [[pytest.approx(row["kl"] / math.log(2)), 75]]
    path.write_text(json.dumps(record | {"drawn": {"linear": 0.75}}))
    with pytest.raises(VlaeError, match=rf"probes/{SMALL}\.json: no 'linear_se'"):
        build_table(NAME, real, tmp_path)
