"""One table, four ways: each is read back by another library or by hand, with the same cells."""

import io
from html.parser import HTMLParser

import pandas as pd
import pytest

from vlae.report.tables.table import Table, letter

NUMBERS = pd.DataFrame({"model": ["a", "b", "c"], "nll": [1 / 3, None, 79.03], "n": [1, 2, 3]})
SHOWN = pd.DataFrame(
    {
        "Model": ["**A|B**", "<b> & ‖", "C"],
        "NLL": ["0.33", "", "+79.03"],
        "Note": ["the first", "", "the first"],
    }
)
TABLE = Table(
    name="small",
    title="A small table",
    legend="Numbers ≤ 80.",
    frame=NUMBERS,
    shown=SHOWN,
    text=("Model", "Note"),
    groups=["One", "One", "Two"],
    below={"Note": "{}"},
    narrow={"NLL": "L"},
    source="Paper: none.",
)


class Cells(HTMLParser):
    """The text of every cell of a table, by row, and the names of all elements."""

    def __init__(self):
        super().__init__()
        self.rows, self.elements = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.rstrip("\n")


def test_the_csv_has_every_digit():
    again = pd.read_csv(io.StringIO(TABLE.to_csv()))
    pd.testing.assert_frame_equal(again, NUMBERS)


def test_markdown():
    lines = TABLE.to_markdown().splitlines()
    assert lines[:4] == ["### A small table", "", "Numbers ≤ 80.", ""]
    grid = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[4:-2]]
    assert grid[0] == ["Model", "NLL", "Note"]
    assert [row[0] for row in grid[2:]] == ["*One*", "**A\\|B**", "<b> & ‖", "*Two*", "C"]
    assert lines[5].startswith("|:--") and lines[5].split("|")[2].endswith("-:")
    assert lines[-1] == "Paper: none."


def test_latex_puts_notes_below_once_and_escapes():
    latex = TABLE.to_latex()
    assert r"\begin{tabular}{lr}" in latex
    assert "Model & L " in latex
    assert r"\textbf{A$|$B}\textsuperscript{a} & 0.33 \\" in latex
    assert r"$<$b$>$ \& $\Vert$ &  \\" in latex
    assert r"C\textsuperscript{a} & $+79.03$ \\" in latex
    assert latex.count("the first") == 1
    assert r"\multicolumn{2}{l}{\emph{Two}}" in latex
    assert r"\caption{A small table. Numbers $\le$ 80.}" in latex


def test_html_shows_the_same_cells_and_only_its_own_elements():
    page = Cells()
    page.feed(TABLE.to_html())
    assert set(page.elements) == {
        *("table", "caption", "strong", "thead", "tbody", "tr", "th", "td"),
    }
    assert page.rows == [
        ["Model", "NLL", "Note"],
        ["One"],
        ["A|B", "0.33", "the first"],
        ["<b> & ‖", "", ""],
        ["Two"],
        ["C", "+79.03", "the first"],
    ]


@pytest.mark.parametrize(("index", "sign"), [(0, "a"), (25, "z"), (26, "aa"), (52, "ba")])
def test_there_are_signs_for_any_number_of_notes(index, sign):
    assert letter(index) == sign
