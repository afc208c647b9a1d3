"""The table of the decoder's window: pixels counted, numbers where they belong, gaps said."""

import numpy as np
import pandas as pd
import pytest

from recorded import write_curve, write_evaluation, write_samples, write_training
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.nn.pixelcnn import PixelCNN
from vlae.report.tables.decoder_windows import COMPARISONS, NAME, readings
from vlae.report.tables.registry import build_table, table_inputs, write_table
from vlae.storage import paths

A, A_UNTIED = (reading.run for reading in COMPARISONS[0].readings[:2])


@pytest.fixture(scope="module")
def real(request):
    return load_params(request.config.rootpath / "params.yaml")


def write(root, run, nll, changed):
    """A run whose decompressions differ from their originals in so many pixels each."""
    write_training(root, run, split="train")
    write_evaluation(root, run, nll)
    write_curve(root, run, [-90.0, -81.5], [9.0, 12.5], valid_elbo=[-91.0, -82.25])
    images = write_samples(root, run, n=len(changed))
    again = images["originals"].copy()
    for image, count in zip(again, changed, strict=True):
        image.reshape(-1)[:count] ^= 1
    np.savez(root / paths.samples(run), **(images | {"decompressions": again}))


def test_rows_by_hand(tmp_path, real):
    write(tmp_path, A, 79.5, [40, 60])
    write_evaluation(tmp_path, "dynamic_mnist-pixelcnn_a", 94.5)
    write_training(tmp_path, "dynamic_mnist-pixelcnn_a")
    frame = build_table(NAME, real, tmp_path).frame
    paper, a, a_untied = (frame.iloc[i] for i in range(3))
    assert (paper["nll"], paper["kl"], paper["alone"]) == (79.03, 13.3, 87.55)
    assert (a["nll"], a["train_bound"], a["valid_bound"]) == (79.5, 81.5, 82.25)
    assert (a["changed"], a["changed_se"]) == (50, 10)
    assert a["tied"] and not a_untied["tied"]
    assert a["alone"] is None and a_untied["alone"] == 94.5
    assert a_untied["note"] == "not trained" and a_untied["nll"] is None
    assert list(frame["pixels"])[1:] == [69, 69, 402, None, 69, 402, None, 69, 402]


def test_the_papers_numbers_stand_over_each_comparison(tmp_path, real):
    frame = build_table(NAME, real, tmp_path).frame
    papers = frame[frame["reading"] == "The paper"]
    assert list(papers["nll"]) == [79.03, 79.03, 78.94]
    assert list(papers["kl"]) == [13.3, 13.3, 11.73]
    assert list(papers["alone"]) == [87.55, 87.55, None]


def test_pixels_are_those_of_the_network(real):
    for reading in readings():
        d = real.run(reading.run).model.decoder
        network = PixelCNN(
            1, 2, d.first_kernel, d.masked_blocks, d.pointwise_blocks, d.tied, d.last_masked
        )
        row = build_table(NAME, real, "nowhere").frame.set_index("run").loc[reading.run]
        assert row["pixels"] == len(network.context_pixels())
        assert row["rows_above"] == max(-r for r, _ in network.context_pixels())
        assert row["columns_aside"] == max(abs(c) for _, c in network.context_pixels())


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: one.title)
def test_readings_differ_in_their_window_only(real, comparison):
    """What the table's legend says: the rest of the model is the same, at first the budget too."""
    runs = [real.run(reading.run) for reading in comparison.readings]
    one_budget = comparison is COMPARISONS[0]
    length = set() if one_budget else {"epochs", "decay_epochs", "start_from"}
    budgets = [{k: v for k, v in vars(run.training).items() if k not in length} for run in runs]
    assert all(budget == budgets[0] for budget in budgets)
    assert len({run.dataset for run in runs}) == 1
    assert runs[0].training.split == (
        "train+valid" if "validation" in comparison.title else "train"
    )
    window = ("first_kernel", "masked_blocks", "last_masked", "tied")
    rest = [
        [(k, v) for k, v in vars(run.model.decoder).items() if k not in window] for run in runs
    ]
    assert all(one == rest[0] for one in rest)
    assert len({(repr(r.model.prior), repr(r.model.posterior)) for r in runs}) == 1
    for reading in comparison.readings:
        if reading.alone:
            alone, whole = real.run(reading.alone).model, real.run(reading.run).model
            assert alone.latent_dim == 0 and alone.decoder == whole.decoder


def test_files_and_inputs(tmp_path, real):
    write(tmp_path, A_UNTIED, 79.25, [1, 2, 3])
    csv, markdown, tex, html = write_table(NAME, real, tmp_path)
    assert len(pd.read_csv(csv)) == len(COMPARISONS) + len(readings())
    (line,) = (row for row in markdown.read_text().splitlines() if "79.25" in row)
    assert line.startswith("| **A. six 3x3") and " no " in line
    assert "79.25" in tex.read_text() and "79.25" in html.read_text()
    inputs = table_inputs(NAME, real)
    assert len(inputs) == len(set(inputs)) == 4 * 7 + 2 * 3


def test_images_that_cannot_be_compared_are_refused(tmp_path, real):
    write(tmp_path, A, 79.5, [1])
    with pytest.raises(VlaeError, match=r"window_a\.npz: needs at least two binary images"):
        build_table(NAME, real, tmp_path)
