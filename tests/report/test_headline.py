"""The headline table says of every printed number how far ours is from it."""

import pandas as pd
import pytest

from recorded import params, write_evaluation, write_training
from vlae.config.load import load_params
from vlae.report.paper import paper_table, table_names
from vlae.report.tables.headline import build, lines, status

VLAE = "static_mnist-vlae"


@pytest.mark.parametrize(
    ("quantity", "unit", "dataset", "difference", "expected"),
    [
        ("NLL", "nats", "static_mnist", 0.15, "reproduced"),
        ("NLL", "nats", "static_mnist", -0.15, "reproduced"),
        ("NLL", "nats", "static_mnist", 0.16, "close"),
        ("NLL", "nats", "static_mnist", -0.16, "beyond"),
        ("NLL", "nats", "static_mnist", 0.61, "not reproduced"),
        ("NLL", "nats", "caltech101", 0.3, "reproduced"),
        ("NLL", "nats", "caltech101", 1.2, "close"),
        ("NLL", "bits/dim", "cifar10", 0.03, "reproduced"),
        ("NLL", "bits/dim", "cifar10", 0.13, "not reproduced"),
        ("KL", "nats", "static_mnist", -0.5, "reproduced"),
        ("KL", "nats", "static_mnist", -2.0, "close"),  # a KL is not the better for being lower
        ("KL", "nats", "static_mnist", -2.1, "not reproduced"),
        ("NLL", "nats", "static_mnist", None, "not trained"),
    ],
)
def test_status(quantity, unit, dataset, difference, expected):
    assert status(quantity, unit, dataset, difference) == expected


def test_every_number_that_the_paper_prints_for_a_run_is_there_once(tmp_path):
    found = {(line.run, line.quantity, line.paper) for line in lines(params(), tmp_path)}
    assert len(found) == len(lines(params(), tmp_path))
    for name in table_names():
        for row in paper_table(name).rows:
            if row.run and row.source != "not in the paper":
                runs = {row.run, row.instead}
                printed = [("NLL", row.value)] * (row.value is not None) + [("KL", row.kl)] * bool(
                    row.kl
                )
                for quantity, value in printed:
                    assert any((run, quantity, value) in found for run in runs), row.model


def test_ours_are_the_recorded_numbers(tmp_path):
    run = "omniglot_rebuilt-vlae"
    for name, nll in ((VLAE, 79.0), (run, 90.4)):
        write_training(tmp_path, name)
        write_evaluation(tmp_path, name, nll=nll, kl=10.96, epochs=60)
    table = build(params(VLAE, run, "omniglot-vlae"), tmp_path)
    frame, shown = table.frame, table.shown
    of = frame[frame["run"] == VLAE].set_index("quantity")
    assert (of.loc["NLL", "ours"], of.loc["NLL", "status"]) == (79.0, "reproduced")
    assert of.loc["NLL", "difference"] == pytest.approx(79.0 - 79.03)
    assert (of.loc["KL", "ours"], of.loc["KL", "status"]) == (10.96, "not reproduced")
    assert (frame["status"] == "not trained").sum() == len(frame) - 3
    assert pd.isna(frame[frame["run"] == "cifar10-vlae_7x4"]["ours"]).all()
    # A run on other data than the row's is marked.
    assert list(shown[shown["Run"] == run]["Ours"]) == ["90.40 ‡"]
    assert list(shown[shown["Run"] == VLAE]["Ours"]) == ["79.00", "10.96"]


def test_the_figure_has_a_dot_for_each_recorded_number(tmp_path):
    from vlae.report.figures.registry import build_figure

    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, nll=79.53, kl=12.8, nll_se=0.2)
    figure = build_figure("headline", params(VLAE), tmp_path)
    axes = {panel.get_label(): panel for panel in figure.axes}
    for name, difference in (("NLL (nats per image)", 0.5), ("KL (nats per image)", -0.5)):
        (bar,) = axes[name].containers
        assert bar.lines[0].get_xdata()[0] == pytest.approx(difference)
        assert axes[name].get_xlim()[0] < -0.5 < 0.5 < axes[name].get_xlim()[1]
    written = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert "79.53, paper 79.03" in written and "12.80, paper 13.30" in written
    assert written.count("not trained") == len(written) - 2


def test_every_name_in_the_figure_is_inside_it(request, tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from vlae.report.figures.registry import build_figure

    real = load_params(request.config.rootpath / "params.yaml")
    figure = build_figure("headline", real, tmp_path)
    FigureCanvasAgg(figure).draw()
    names = [name for panel in figure.axes for name in panel.get_yticklabels()]
    assert len(names) == len(lines(real, tmp_path))
    assert all(name.get_window_extent().x0 > 0 for name in names)
