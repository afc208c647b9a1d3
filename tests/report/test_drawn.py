"""A drawing and its note agree, and whatever differs from the note is named."""

import json

import pytest

from recorded import params, write_curve, write_evaluation, write_training
from vlae.errors import VlaeError
from vlae.report.drawn import agrees, differences, note_file
from vlae.report.figures.registry import figure_inputs, figure_outputs, write_figure
from vlae.report.tables.registry import table_inputs, table_outputs, write_table
from vlae.report.verify import verify_drawings

RUN = "static_mnist-vlae"
KNOWN = params(RUN)
TABLE, FIGURE = "table1_static_mnist", "learning_curves"
NOTE = f"results/drawn/tables/{TABLE}.json"


@pytest.fixture
def drawn(tmp_path):
    """A project with a table and a figure."""
    write_training(tmp_path, RUN)
    write_evaluation(tmp_path, RUN)
    write_curve(tmp_path, RUN, [-90.0, -85.0, -84.0], [9.0, 10.0, 11.0])
    write_table(TABLE, KNOWN, tmp_path)
    write_figure(FIGURE, KNOWN, tmp_path)
    return tmp_path


def check(root):
    lines = []
    try:
        for line in verify_drawings(KNOWN, root):
            lines.append(line)
    except VlaeError as error:
        return lines, str(error)
    return lines, None


def test_what_is_as_drawn_is_said_in_one_line(drawn):
    said = "1 tables and 1 figures: as drawn from the recorded results (by checksum)"
    assert check(drawn) == ([said], None)


def test_nothing_drawn_is_nothing_wrong(tmp_path):
    assert check(tmp_path)[1] is None


def test_a_note_has_the_files_that_were_there(drawn):
    note = json.loads((drawn / NOTE).read_text())
    files = {f"results/checkpoints/{RUN}/train.json", f"results/evaluations/{RUN}.json"}
    assert set(note["from"]) == files
    assert set(note["drawn"]) == set(table_outputs(TABLE))


def type_into(path):
    path.write_bytes(path.read_bytes() + b" ")


def damage(path):
    path.write_text("<<<<<<< HEAD\n" + path.read_text())


def empty_mapping(path):
    path.write_text("{}")


def a_list(path):
    path.write_text('{"from": [], "drawn": 3}')


@pytest.mark.parametrize(
    ("name", "disturb", "who", "said"),
    [
        (
            f"results/tables/{TABLE}.md",
            type_into,
            f"tables/{TABLE}",
            "has changed since it was drawn",
        ),
        (f"results/tables/{TABLE}.tex", None, f"tables/{TABLE}", "is missing"),
        (
            f"results/figures/{FIGURE}.pdf",
            type_into,
            f"figures/{FIGURE}",
            "has changed since it was drawn",
        ),
        (f"results/evaluations/{RUN}.json", type_into, f"tables/{TABLE}", "from another"),
        (f"results/evaluations/{RUN}.json", None, f"tables/{TABLE}", "which is missing"),
        (f"results/checkpoints/{RUN}/curve.csv", type_into, f"figures/{FIGURE}", "from another"),
        (NOTE, None, f"tables/{TABLE}", "missing or damaged"),
        (NOTE, damage, f"tables/{TABLE}", "missing or damaged"),
        (NOTE, empty_mapping, f"tables/{TABLE}", "missing or damaged"),
        (NOTE, a_list, f"tables/{TABLE}", "missing or damaged"),
    ],
)
def test_what_disagrees_is_named(drawn, name, disturb, who, said):
    path = drawn / name
    if disturb:
        disturb(path)
    else:
        path.unlink()
    lines, error = check(drawn)
    assert [line for line in lines if line.startswith(f"{who}: NOT as recorded") and said in line]
    assert lines[-1] == "1 tables and 1 figures: 1 of them NOT as recorded (by checksum)"
    assert f": {who};" in error and "snakemake --cores all --config train=false" in error


def test_a_result_that_came_later_is_named(drawn):
    write_training(drawn, "static_mnist-vae_af")
    (line,) = differences(
        "tables",
        TABLE,
        [*table_inputs(TABLE, KNOWN), "results/checkpoints/static_mnist-vae_af/train.json"],
        table_outputs(TABLE),
        drawn,
    )
    assert line == "drawn without results/checkpoints/static_mnist-vae_af/train.json"


def test_drawing_again_settles_it(drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    write_evaluation(drawn, RUN, nll=70.0)
    arguments = ("tables", TABLE, table_inputs(TABLE, KNOWN), table_outputs(TABLE))
    assert not agrees(*arguments)
    write_table(TABLE, KNOWN)
    assert agrees(*arguments)
    (drawn / note_file("figures", FIGURE)).unlink()
    figure = ("figures", FIGURE, figure_inputs(FIGURE, KNOWN), figure_outputs(FIGURE))
    assert not agrees(*figure)
    write_figure(FIGURE, KNOWN)
    assert agrees(*figure)
