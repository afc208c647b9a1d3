"""Hours of a budget, by the speed of the stretches that are recorded."""

import pytest

from recorded import params, write_training
from vlae.report.tables.training_time import build

RUN = "static_mnist-vlae"


def stretch(begin, end, seconds, core="C++ (AMX)", device="cpu", hardware="1 core of X"):
    return {
        "from_epoch": begin,
        "to_epoch": end,
        "seconds": seconds,
        "core": core,
        "device": device,
        "hardware": hardware,
    }


def test_hours_are_those_of_the_fastest_stretch_of_each_kind(tmp_path):
    stretches = [
        stretch(0, 10, 3600),
        stretch(10, 30, 3600),  # 180 s an epoch
        stretch(30, 40, 3600, core="C++ (AVX-512)"),
        stretch(40, 50, 3600, core="PyTorch"),
        stretch(50, 60, 1800, core="C++ (AVX2)"),
        stretch(50, 60, 36, core="PyTorch, CUDA graph", device="cuda", hardware="H100"),
        # These say nothing of one core.
        stretch(60, 61, 1, hardware="2 cores of X"),
        stretch(61, 62, 1, hardware="16 cores of X"),
        stretch(62, 63, 1, hardware="1 core of X, 2 cores of X"),
    ]
    write_training(tmp_path, RUN, epochs=60, seconds=1, stretches=stretches)
    frame = build(params(RUN), tmp_path).frame
    (row,) = frame.to_dict("records")
    assert [row[kind] for kind in ("amx", "avx512", "avx2", "pytorch")] == [3.0, 6.0, 3.0, 6.0]
    assert row["gpu"] == pytest.approx(0.06)


def test_records_without_stretches_and_runs_without_records(tmp_path):
    write_training(
        tmp_path, RUN, epochs=30, seconds=7200, core="C++ (AMX)", hardware="1 core of X"
    )
    table = build(params(RUN, "static_mnist-vae_af"), tmp_path)
    assert table.frame["run"].tolist() == [RUN]
    assert table.frame["amx"].tolist() == [2.0]
    assert list(table.shown.columns) == ["Run", "Epochs", "1 core with AMX"]
