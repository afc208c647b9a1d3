"""The printed numbers, and our measured ones beside them."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from miniature import PROJECT
from recorded import params, write_evaluation, write_per_image, write_training
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.report.paper import paper, paper_table, printed_kl, printed_nll, table_names
from vlae.report.tables import information
from vlae.report.tables.decoder_windows import readings
from vlae.report.tables.paper_table import build_frame
from vlae.report.tables.registry import TABLES, table_inputs, table_outputs, write_table

VLAE = "static_mnist-vlae"
TABLE_1 = params(
    VLAE,
    "static_mnist-vlae_factorized",
    "static_mnist-vlae_iaf_relu",
    "static_mnist-vae_af",
    "static_mnist-vae_iaf",
)


def line_of(frame: pd.DataFrame, run: str) -> pd.Series:
    (line,) = [line for _, line in frame.dropna(subset="run").iterrows() if line["run"] == run]
    return line


def markdown_cells(text: str, model: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {model} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- what the paper prints -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "printed", "best"),
    [
        # Rows with a printed value, and the last of them, which the paper sets in bold.
        ("table1_static_mnist", 7, 79.03),
        ("table2_dynamic_mnist", 8, 78.53),
        ("table3_omniglot", 8, 89.83),
        ("table4_caltech101", 7, 77.36),
        ("table5_cifar10", 14, 2.95),
        ("table6_ablation", 3, 78.94),
    ],
)
def test_paper_tables_are_complete(name, printed, best):
    table = paper_table(name)
    rows = [row for row in table.rows if row.source == table.source and not row.reading_of]
    assert [row.value is not None for row in rows] == [True] * printed
    assert rows[-1].value == best
    assert all(row.run for row in table.rows if row.source != table.source)


@pytest.mark.parametrize("name", table_names())
def test_another_reading_has_the_numbers_of_its_row(name):
    """Only its name and its run are its own."""
    rows = {row.model: row for row in paper_table(name).rows}
    for row in rows.values():
        if row.reading_of:
            own = {"model": row.reading_of, "run": rows[row.reading_of].run, "reading_of": None}
            assert replace(row, **own) == rows[row.reading_of]
            assert row.run != rows[row.reading_of].run


def test_paper_sums_agree_with_an_independent_count():
    """A digit mistyped anywhere in a table changes its sum; these were added up separately."""
    sums = {
        "table1_static_mnist": 564.49,
        "table2_dynamic_mnist": 651.68,
        "table3_omniglot": 773.48,
        "table4_caltech101": 673.80,
        "table5_cifar10": 54.84,
        "table6_ablation": 245.97,
    }
    for name, expected in sums.items():
        table = paper_table(name)
        rows = [row for row in table.rows if not row.reading_of]
        values = [row.value for row in rows if row.source == table.source]
        assert sum(values) == pytest.approx(expected, abs=1e-9), name


def test_bounds_stand_where_they_are_printed():
    bounded = {
        name: {row.model for row in paper_table(name).rows if row.bound == "<"}
        for name in table_names()
    }
    assert bounded == {
        "table1_static_mnist": {"DRAW"},  # Discrete VAE is printed without the sign there
        "table2_dynamic_mnist": {"DRAW + VGP"},
        "table3_omniglot": {"DRAW", "Conv DRAW"},
        "table4_caltech101": set(),
        "table5_cifar10": set(),
        "table6_ablation": set(),
    }
    of_table_5 = [row for row in paper_table("table5_cifar10").rows if row.source == "Table 5"]
    assert {row.bound for row in of_table_5} == {"≤"}


def test_quoted_effects_and_what_follows_from_them():
    assert [effect.get("value") for effect in paper()["effects"]] == [0.8, 0.6, None]
    rows = {row.run: row for row in paper_table("table1_static_mnist").rows}
    assert rows["static_mnist-vlae_iaf_relu"].value == pytest.approx(79.03 + 0.6, abs=0.05)
    assert rows[VLAE].kl == 13.3
    assert rows[VLAE].kl == pytest.approx(19.2 * math.log(2), abs=0.05)  # both are printed
    assert rows["static_mnist-vlae_factorized"].kl == pytest.approx(25.85, abs=0.005)
    rows = [row for row in paper_table("table6_ablation").rows if not row.reading_of]
    ablation = [row for row in rows if row.value is not None]
    assert [row.kl for row in ablation] == [0, 10.60, 11.73]


def test_printed_values_for_a_run():
    assert printed_nll("dynamic_mnist-vlae") == 78.53  # Table 2 before the ablation
    assert printed_nll("static_mnist-vlae_iaf_relu") is None  # derived, not printed
    assert printed_kl("dynamic_mnist-vlae") == 11.73
    assert printed_nll("no-run") is printed_kl("no-run") is None


def test_every_run_of_params_yaml_has_its_row():
    rows = [row for name in table_names() for row in paper_table(name).rows]
    with_row = {run for row in rows for run in (row.run, row.instead)}
    with_row |= {run for reading in readings() for run in (reading.run, reading.alone)}
    params = load_params(PROJECT / "params.yaml")
    with_row |= {point.run.name for point in information.points(params)}
    assert {run.repeats or run.name for run in params.runs.values()} <= with_row


# --- our numbers beside them -----------------------------------------------------------------


def test_measured_row(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, nll=80.4375)
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    assert line["paper"] == 79.03
    assert line["ours"] == 80.4375
    assert line["standard_error"] == 0.2345
    assert line["difference"] == pytest.approx(80.4375 - 79.03)
    assert (line["kl_paper"], line["kl_ours"]) == (13.3, 12.125)
    assert (line["epochs"], line["importance_samples"]) == (30, "64")
    assert (line["hardware"], line["test_images"]) == ("2 cores of AMD EPYC", 10000)
    assert line["note"] == "30 epochs, IS-64; paper: IS-4096, budget not reported"


DEEP = {"images": 200, "importance_samples": 4096, "difference": -0.31, "difference_se": 0.01}


def test_row_of_two_levels(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, nll=79.875, deep=DEEP, estimator="two-level")
    csv, markdown, latex, _ = write_table("table1_static_mnist", TABLE_1, tmp_path)
    line = line_of(pd.read_csv(csv), VLAE)
    assert (line["ours"], line["importance_samples"]) == (79.875, "64; 4096 on 200")
    note = "30 epochs, IS-64 corrected by IS-4096 on 200 images; "
    assert line["note"] == note + "paper: IS-4096, budget not reported"
    assert markdown_cells(markdown.read_text(), "**VLAE**")[8] == "64; 4096 on 200"
    assert " & 30 & 64; 4096 on 200 " in latex.read_text()
    for path in (markdown, latex):
        assert "a second number is for some images" in path.read_text()


def test_a_row_says_why_it_could_not_be_trained(tmp_path):
    runs = params(VLAE)
    runs.why_not_trained = lambda run: "its file is lost"
    frame = build_frame("table1_static_mnist", runs, tmp_path)
    assert line_of(frame, VLAE)["note"].startswith("not trained: its file is lost")


def test_mean_and_spread_over_seeds(tmp_path):
    again = [f"{VLAE}_seed{seed}" for seed in (1, 2, 3, 4)]
    runs = params(VLAE, repetitions={VLAE: again})
    for run, nll, se, kl, epochs in (
        (VLAE, 80.0, 0.20, 12.0, 30),
        (again[0], 80.5, 0.22, 13.0, 30),
        (again[1], 81.0, 0.24, 14.0, 30),
        (again[2], 99.0, 0.20, 12.0, 3),
    ):
        write_training(tmp_path, run, epochs=epochs)
        write_evaluation(tmp_path, run, nll=nll, nll_se=se, kl=kl, epochs=epochs)
    csv, markdown, latex, _ = write_table("table1_static_mnist", runs, tmp_path)
    line = line_of(pd.read_csv(csv), VLAE)
    assert (line["ours"], line["seeds"], line["spread"]) == (80.5, 3, pytest.approx(0.5))
    assert (line["standard_error"], line["kl_ours"]) == (pytest.approx(0.22), 13.0)
    assert line["difference"] == pytest.approx(80.5 - 79.03)
    assert "80.00, 80.50, 81.00 nats with 3 seeds; " in line["note"]
    assert f"{again[2]}: left out because its budget or test set differs" in line["note"]
    assert f"{again[3]}: not trained and evaluated" in line["note"]
    cells = markdown_cells(markdown.read_text(), "**VLAE**")
    assert cells[2:6] == ["80.50", "0.22", "3", "0.50"]
    for path in (markdown, latex):
        assert "with several, ours is their mean" in path.read_text()


def test_without_repetitions_nothing_is_said_of_seeds(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE)
    csv, markdown, latex, _ = write_table("table1_static_mnist", TABLE_1, tmp_path)
    line = line_of(pd.read_csv(csv), VLAE)
    assert line["seeds"] == 1 and math.isnan(line["spread"])
    for path in (markdown, latex):
        assert "seed" not in path.read_text().lower()


def test_the_spread_too_is_in_the_unit_of_the_table(tmp_path):
    run = paper_table("table5_cifar10").rows[-1].run
    runs = params(run, repetitions={run: [f"{run}_seed1"]})
    for name, nll in ((run, 6000.0), (f"{run}_seed1", 6100.0)):
        write_training(tmp_path, name)
        write_evaluation(tmp_path, name, nll=nll, bits_per_dim=nll / 3072 / math.log(2))
    line = line_of(build_frame("table5_cifar10", runs, tmp_path), run)
    assert line["ours"] == pytest.approx(6050 / 3072 / math.log(2))
    assert line["spread"] == pytest.approx(100 / math.sqrt(2) / 3072 / math.log(2))


def test_records_of_before_there_were_two_levels(tmp_path):
    """They lack its keys; those of one level have null. Both give the same tables."""
    write_training(tmp_path, VLAE)
    texts = []
    for changes in ({}, {"deep": None, "estimator": "importance sampling"}):
        write_evaluation(tmp_path, VLAE, **changes)
        paths = write_table("table1_static_mnist", TABLE_1, tmp_path)
        texts.append([path.read_text() for path in paths])
    assert texts[0] == texts[1]
    assert not any("a second number is for" in text for text in texts[0])


def test_every_row_is_there_whatever_is_trained(tmp_path):
    for name in table_names():
        frame = build_frame(name, params(), tmp_path)
        assert len(frame) == len(paper_table(name).rows)
        ours = frame[frame["run"].notna()]
        assert ours["note"].str.startswith("not trained").all()
        assert frame["ours"].isna().all()
        assert frame[frame["run"].isna()]["note"].isna().all()


def test_files_have_the_same_numbers(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, nll=78.9876543)
    paths = write_table("table1_static_mnist", TABLE_1, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == table_outputs(
        "table1_static_mnist"
    )
    csv, markdown, latex, _ = paths
    assert line_of(pd.read_csv(csv), VLAE)["ours"] == 78.9876543  # every digit

    text = markdown.read_text()
    assert markdown_cells(text, "**VLAE**") == [
        "**VLAE**",
        *("79.03", "78.99", "0.23", "-0.04", "13.30", "12.12", "30", "64"),
        *("2 cores of AMD EPYC", "10,000"),
        "30 epochs, IS-64; paper: IS-4096, budget not reported",
    ]
    draw = markdown_cells(text, "DRAW (Gregor et al. 2015)")
    assert draw[1] == "< 80.97" and not any(draw[2:])
    derived = markdown_cells(text, "**VLAE, IAF posterior for AF prior**")
    assert derived[1] == "≈ 79.6"
    assert derived[-1] == "not trained; paper's value derived: 79.03 + 0.6 (Section 4)"
    factorized = markdown_cells(text, "**VLAE, factorized decoder**")
    assert (factorized[1], factorized[5]) == ("", "≈ 25.85")
    assert factorized[-1] == "not trained; the paper prints its KL only: 37.3 bits"

    assert (
        r"\textbf{VLAE}\textsuperscript{b} & 79.03 & 78.99 & 0.23 & $-0.04$" in latex.read_text()
    )
    assert set(csv.parent.iterdir()) == set(paths)  # nothing temporary is left


def test_the_same_results_give_the_same_bytes(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE)
    first = [path.read_bytes() for path in write_table("table1_static_mnist", TABLE_1, tmp_path)]
    again = [path.read_bytes() for path in write_table("table1_static_mnist", TABLE_1, tmp_path)]
    assert first == again


def test_exact_likelihood_and_its_draws(tmp_path):
    run = "dynamic_mnist-pixelcnn"
    write_training(tmp_path, run)
    draws = [{"seed": 1, "nll": 87.91}, {"seed": 2, "nll": 88.02}]
    exact = {"exact": True, "importance_samples": 1, "kl": 0.0, "draws": draws}
    write_evaluation(tmp_path, run, nll=88.0, **exact)
    line = line_of(build_frame("table2_dynamic_mnist", params(run), tmp_path), run)
    assert line["importance_samples"] == "exact"
    assert line["note"] == (
        "30 epochs, exact; paper's budget not reported; "
        "87.91 to 88.02 nats over 2 binarizations of the test images"
    )
    # The ablation shows the same run beside its own printed number.
    ablation = line_of(build_frame("table6_ablation", params(run), tmp_path), run)
    assert (ablation["ours"], ablation["kl_paper"], ablation["kl_ours"]) == (88.0, 0, 0)


def test_notes_tell_what_differs_from_a_final_result(tmp_path):
    write_training(tmp_path, VLAE, epochs=60, split="train", hardware="NVIDIA H200")
    write_evaluation(tmp_path, VLAE, n_test=100, epochs=1, config={"images": 100})
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    assert line["epochs"] == 1
    assert line["hardware"] == "NVIDIA H200; evaluated on 2 cores of AMD EPYC"
    assert line["note"] == (
        "1 epoch, IS-64; paper: IS-4096, budget not reported; training has since reached "
        "60 epochs; trained without the validation images; the first 100 test images only"
    )


def test_trained_but_not_evaluated(tmp_path):
    write_training(tmp_path, VLAE, epochs=7)
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    assert line["note"] == "trained for 7 epochs, not evaluated"
    assert line["epochs"] == 7 and pd.isna(line["ours"])


def test_a_row_the_paper_quotes_is_not_credited_with_its_importance_samples(tmp_path):
    write_training(tmp_path, "static_mnist-vae_iaf")
    write_evaluation(tmp_path, "static_mnist-vae_iaf")
    frame = build_frame("table1_static_mnist", TABLE_1, tmp_path)
    note = line_of(frame, "static_mnist-vae_iaf")["note"]
    assert note == "30 epochs, IS-64; paper's budget not reported"


def test_a_row_of_ours_alone_has_nothing_of_the_paper(tmp_path):
    run = "cifar10-narrow_4x2"
    runs = params(run)
    write_training(tmp_path, run)
    write_evaluation(tmp_path, run)
    frame = build_frame("table5_cifar10", runs, tmp_path)
    line = line_of(frame, run)
    assert pd.isna(line["paper"]) and pd.isna(line["difference"]) and line["ours"] > 0
    assert line["group"].startswith("Narrow networks")
    assert line["source"] == "not in the paper" and "paper:" not in line["note"]
    runs.runs[run].dataset = "static_mnist"
    with pytest.raises(VlaeError, match="data set 'static_mnist', but table5_cifar10 is cifar10"):
        build_frame("table5_cifar10", runs, tmp_path)


@pytest.mark.parametrize(
    ("stretches", "note"),
    [
        ([(30, 0)], "30 epochs, IS-64"),
        ([(30, 4)], "30 epochs (the learning rate decays over the last 4), IS-64"),
        ([(20, 4), (30, 0)], "30 epochs in 2 stretches, IS-64"),
        (
            [(9, 2), (20, 0), (30, 6)],
            "30 epochs (the learning rate decays over the last 6) in 3 stretches, IS-64",
        ),
    ],
)
def test_a_decay_and_a_continuation_are_marked(tmp_path, stretches, note):
    listed = [{"to_epoch": to, "decay_epochs": decay} for to, decay in stretches]
    write_training(tmp_path, VLAE, stretches=listed)
    write_evaluation(tmp_path, VLAE)
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    assert line["note"].startswith(f"{note}; paper: IS-4096")
    assert line["epochs"] == 30


def test_the_epochs_of_a_run_s_start_are_shown_with_its_own(tmp_path):
    start = {"run": "static_mnist-window_a", "epochs": 61, "checkpoint_sha256": "0"}
    write_training(tmp_path, VLAE, start=start)
    write_evaluation(tmp_path, VLAE)
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    assert (line["epochs"], line["epochs_before"]) == (30, 61)
    markdown = write_table("table1_static_mnist", TABLE_1, tmp_path)[1].read_text()
    assert "61 + 30" in markdown_cells(markdown, "**VLAE**")
    headline = write_table("headline", TABLE_1, tmp_path)[1].read_text()
    assert headline.count("61 + 30") == 2  # its NLL and its KL


REBUILT = "OMNIGLOT 28x28 rebuilt by its recipe, not chardata.mat itself"


def test_a_run_on_the_rebuilt_data_set_stands_in_for_one_that_is_not_trained(tmp_path):
    own, instead = "omniglot-vlae", "omniglot_rebuilt-vlae"
    runs = params(own, instead)
    frame = build_frame("table3_omniglot", runs, tmp_path)
    assert own not in set(frame["run"])
    assert line_of(frame, instead)["note"] == f"not trained; {REBUILT}"
    write_training(tmp_path, instead)
    write_evaluation(tmp_path, instead)
    line = line_of(build_frame("table3_omniglot", runs, tmp_path), instead)
    assert line["paper"] == 90.98
    assert line["difference"] == pytest.approx(line["ours"] - 90.98)
    assert line["note"] == f"30 epochs, IS-64; paper: IS-4096, budget not reported; {REBUILT}"
    read = table_inputs("table3_omniglot", runs)
    assert [any(f"/{run}/" in path for path in read) for run in (own, instead)] == [True, True]
    write_training(tmp_path, own)
    frame = build_frame("table3_omniglot", runs, tmp_path)
    assert instead not in set(frame["run"])
    assert line_of(frame, own)["note"] == "trained for 30 epochs, not evaluated"


def test_no_row_of_table_3_says_that_data_are_lacking():
    rows = [row for row in paper_table("table3_omniglot").rows if row.run]
    runs = load_params(PROJECT / "params.yaml")
    for row in rows:
        assert row.instead in runs.runs and runs.why_not_trained(row.instead) == ""
        assert (runs.run(row.instead).dataset, row.note) == ("omniglot_rebuilt", REBUILT)


def test_bits_per_dimension(tmp_path):
    run = "cifar10-resnet_vlae"
    write_training(tmp_path, run)
    nats = 3.1 * 3072 * math.log(2)
    write_evaluation(tmp_path, run, nll=nats, nll_se=0.01 * 3072 * math.log(2), bits_per_dim=3.1)
    line = line_of(build_frame("table5_cifar10", params(run), tmp_path), run)
    assert line["ours"] == pytest.approx(3.1)
    assert line["standard_error"] == pytest.approx(0.01)
    assert line["difference"] == pytest.approx(3.1 - 3.04)


def test_narrow_colour_runs_stand_apart(tmp_path):
    run = "cifar10-narrow_7x4"
    write_training(tmp_path, run, epochs=2)
    nats = 4.31 * 3072 * math.log(2)
    changes = {"nll_se": 0.0071 * 3072 * math.log(2), "bits_per_dim": 4.31, "kl": 30.5}
    write_evaluation(tmp_path, run, nll=nats, epochs=2, n_test=10_000, **changes)
    paths = write_table("table5_cifar10", params(run), tmp_path)
    line = line_of(pd.read_csv(paths[0]), run)
    assert line["group"].startswith("Narrow networks")
    assert pd.isna(line["paper"]) and pd.isna(line["difference"])
    assert (line["ours"], line["kl_ours"]) == (pytest.approx(4.31), 30.5)
    assert line["note"] == (
        "2 epochs, IS-64; KL of 44.0 bits; half the feature maps and half the decoder blocks"
    )
    cells = markdown_cells(paths[1].read_text(), "**Narrow VLAE, receptive field 7x4**")
    assert cells[2:4] == ["4.31", "0.0071"]
    assert cells[-2] == "10,000"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dataset": "dynamic_mnist"}, "is a record of dataset 'dynamic_mnist'"),
        ({"run": "static_mnist-vae_af"}, "is a record of run 'static_mnist-vae_af'"),
        ({"nll": None}, "'nll' must be float, is None"),
        ({"nll": float("nan")}, "'nll' must be float, is nan"),
        ({"epochs": True}, "'epochs' must be int, is True"),
        ({"draws": [{"seed": 1}]}, "'draws' must be a list with nll each"),
        ({"deep": 200}, "'deep' must be null or hold images, importance_samples, difference"),
        ({"deep": {}}, "'deep' must be null or hold"),
        ({"deep": DEEP | {"images": "200"}}, "'deep' must be null or hold"),
        ({"deep": DEEP | {"difference_se": None}}, "'deep' must be null or hold"),
    ],
)
def test_bad_evaluation(tmp_path, changes, complaint):
    write_training(tmp_path, VLAE)
    path = write_evaluation(tmp_path, VLAE)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(VlaeError) as caught:
        build_frame("table1_static_mnist", TABLE_1, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "static_mnist-vlae"}', "\x00\xff"])
def test_malformed_record(tmp_path, text):
    write_training(tmp_path, VLAE).write_bytes(text.encode("latin-1"))
    with pytest.raises(VlaeError, match=r"train\.json: "):
        build_frame("table1_static_mnist", TABLE_1, tmp_path)


def test_evaluation_without_training(tmp_path):
    write_evaluation(tmp_path, VLAE)
    with pytest.raises(
        VlaeError, match=r"results.checkpoints.*train\.json, its training, is missing"
    ):
        build_frame("table1_static_mnist", TABLE_1, tmp_path)


def test_a_run_must_be_on_the_data_set_of_its_table(tmp_path):
    elsewhere = params(VLAE)
    elsewhere.runs[VLAE].dataset = "dynamic_mnist"
    with pytest.raises(VlaeError, match="table1_static_mnist is static_mnist"):
        build_frame("table1_static_mnist", elsewhere, tmp_path)


def test_unknown_table(tmp_path):
    for function in (paper_table, table_outputs):
        with pytest.raises(
            VlaeError, match=r"no table 'table9'; there are: .*table1_static_mnist"
        ):
            function("table9")


def test_inputs_are_the_records_of_the_runs_in_params():
    assert table_inputs("table1_static_mnist", params(VLAE, "dynamic_mnist-pixelcnn")) == [
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/evaluations/static_mnist-vlae.json",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    write_training(tmp_path, VLAE, hardware="50% of a C_PU & more #1 ~ {x}")
    write_evaluation(tmp_path, VLAE, n_test=3)
    write_per_image(tmp_path, VLAE, [-80.0, -81.0, -80.5])
    inputs = []
    for name in TABLES:
        inputs.append(rf"\input{{{write_table(name, TABLE_1, tmp_path)[2]}}}")
    lines = [r"\documentclass{article}\usepackage{booktabs}\begin{document}", *inputs]
    (tmp_path / "all.tex").write_text("\n".join([*lines, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_tables_do_not_load_torch_or_plotting():
    code = (
        "import sys, vlae.report.tables.registry, vlae.report.figures.registry;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- importance sampling that is not reliable ------------------------------------------------


FALLING = [{"k": k, "nll": 80 - 0.1 * i, "se": 0.1} for i, k in enumerate((512, 1000, 1024, 2048))]
STEADY = [{"k": k, "nll": 80.0, "se": 0.1} for k in (1, 16, 20)]
FAILING = {"samples": 4096, "k_median": 0.9, "k_most": 0.7, "failing": 0.75}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pareto": FAILING}, "Pareto k-hat above 0.70 for 75% of the images"),
        ({"pareto": FAILING | {"failing": 0.05}, "curve": FALLING}, None),
        ({"pareto": FAILING | {"ess_median": 0.94 * 4096}}, "Pareto k-hat above 0.70 for 75%"),
        ({"pareto": FAILING | {"ess_median": 0.96 * 4096}}, None),
        (
            {"curve": FALLING, "ess": 7.25},
            "lowered the NLL by 0.10 nats; 7.2 effective samples of 64; Pareto",
        ),
        (
            {"curve": FALLING, "pareto": None},
            "lowered the NLL by 0.10 nats; Pareto k-hat not recorded",
        ),
        ({"curve": STEADY, "ess": 2.0}, None),
        ({"curve": [{"k": 1, "nll": 80.0, "se": 1.0}]}, None),
        ({}, None),
        ({"exact": True, "pareto": None, "curve": FALLING}, None),
    ],
)
def test_a_row_whose_importance_sampling_fails_is_marked(tmp_path, changes, said):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, **changes)
    line = line_of(build_frame("table1_static_mnist", TABLE_1, tmp_path), VLAE)
    write_table("table1_static_mnist", TABLE_1, tmp_path)
    text = (tmp_path / "results/tables/table1_static_mnist.md").read_text()
    assert pd.isna(line.doubt) == (said is None) == ("†" not in text)
    if said:
        assert said in line.note and "probably too high" in line.note
        assert "80.50 †" in text and "†: the importance sampling is not reliable" in text


@pytest.mark.parametrize("pareto", [1, [], {}, FAILING | {"failing": "all"}])
def test_what_is_recorded_of_k_hat_is_checked(tmp_path, pareto):
    write_training(tmp_path, VLAE)
    path = write_evaluation(tmp_path, VLAE, pareto=pareto)
    with pytest.raises(VlaeError, match="'pareto' must be null or hold") as error:
        build_frame("table1_static_mnist", TABLE_1, tmp_path)
    assert str(path) in str(error.value)
