"""The table of our own models: beside the paper's best VLAE, with what their training cost."""

import pandas as pd
import pytest

from recorded import REAL, params, write_evaluation, write_training
from vlae.report.paper import paper_table, table_names
from vlae.report.tables.beyond import beyond_inputs, build

TUNED, PLUS = "omniglot_rebuilt-vlae_tuned", "omniglot_rebuilt-vlae_plus"
CALTECH, MIRRORED = "caltech101-vlae", "caltech101-vlae_plus"
RUNS = (TUNED, PLUS, CALTECH, MIRRORED)
WEIGHTS = "a" * 64


def begun(sha256=WEIGHTS):
    return {"run": TUNED, "epochs": 86, "checkpoint_sha256": sha256}


def test_each_of_our_models_stands_beside_a_printed_number():
    rows = [row for name in table_names() for row in paper_table(name).rows if row.ours_alone]
    assert rows
    for name in table_names():
        values = {row.model: row.value for row in paper_table(name).rows if not row.ours_alone}
        for row in paper_table(name).rows:
            assert row.beside is None or row.ours_alone
            if row.beside:
                assert row.value == values[row.beside]
                assert values[row.beside] == min(
                    row.value
                    for row in paper_table(name).rows
                    if row.run and not row.ours_alone and row.value and not row.derived
                )


def test_gain_and_cost(tmp_path):
    write_training(tmp_path, TUNED, seconds=7200.0, checkpoint_sha256=WEIGHTS)
    write_training(tmp_path, PLUS, seconds=1800.0, epochs=8, start=begun())
    write_training(tmp_path, MIRRORED, seconds=900.0)
    write_evaluation(tmp_path, TUNED, nll=89.6, epochs=86)
    write_evaluation(tmp_path, PLUS, nll=89.25, epochs=8)
    write_evaluation(tmp_path, MIRRORED, nll=75.5)
    table = build(params(*RUNS), tmp_path)
    frame = table.frame.set_index("run")
    assert list(frame.index) == [PLUS, MIRRORED]
    assert frame.loc[PLUS, "gain"] == pytest.approx(89.83 - 89.25)
    assert frame.loc[PLUS, "reproduced"] == 89.6
    assert frame.loc[PLUS, "hours"] == 2.5  # with the run that it began with
    assert frame.loc[MIRRORED, "gain"] == pytest.approx(77.36 - 75.5)
    assert pd.isna(frame.loc[MIRRORED, "reproduced"])  # the paper's row is not evaluated here
    first = table.shown.iloc[0]
    assert (first["VLAE+"], first["Gain"], first["Epochs"]) == ("**89.25 ‡**", "+0.58", "86 + 8")
    assert (first["Hours"], table.shown.iloc[1]["Hours"]) == ("2.5", "0.2")
    assert table.shown.iloc[1]["Our run of it"] == ""


@pytest.mark.parametrize(
    "before",
    [
        {"seconds": 7200.0, "checkpoint_sha256": "b" * 64},  # trained further since
        {"checkpoint_sha256": WEIGHTS},  # its time was not recorded
    ],
)
def test_an_unknown_cost_is_not_shown(tmp_path, before):
    write_training(tmp_path, TUNED, **before)
    write_training(tmp_path, PLUS, seconds=1800.0, start=begun())
    write_evaluation(tmp_path, PLUS, nll=89.25)
    assert build(params(*RUNS), tmp_path).shown.iloc[0]["Hours"] == ""


def test_unreliable_estimates_are_marked(tmp_path):
    write_training(tmp_path, MIRRORED, seconds=900.0)
    failing = {"samples": 64, "k_median": 0.8, "k_most": 1.0, "failing": 0.6}
    write_evaluation(tmp_path, MIRRORED, nll=75.5, pareto=failing)
    table = build(params(*RUNS), tmp_path)
    assert table.shown.iloc[0]["VLAE+"] == "**75.50 †**"
    assert not table.frame.iloc[0]["reliable"]
    assert r"\textbf{75.50 †}" in table.to_latex()
    assert "<strong>75.50 †</strong>" in table.to_html()


def test_before_any_training_the_table_is_empty(tmp_path):
    table = build(params(*RUNS), tmp_path)
    assert table.frame.empty and table.to_markdown() and table.to_latex() and table.to_html()


def test_the_start_is_an_input():
    assert f"results/checkpoints/{TUNED}/train.json" in beyond_inputs(REAL)
