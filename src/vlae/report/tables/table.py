"""Writes a table as csv for machines, Markdown for GitHub, LaTeX for a paper, and HTML.

Two pandas frames hold its content: the numbers with all digits, and the text that readers see.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pandas loads slowly, and the workflow imports this module at every start
    import pandas as pd

BOLD = re.compile(r"\*\*(.*)\*\*")


@dataclass(frozen=True)
class Table:
    """A table.

    frame: all columns, for the csv.
    shown: the same rows for readers: text by heading, with the row's name in the first column. A
        cell **like this** is bold.
    groups: the group heading of each row, or None; the rows of a group are adjacent.
    text: headings of left-aligned columns; all others are right-aligned.
    below: columns that LaTeX, with its narrow pages, puts into a note below the table: a format
        string for the cell, by heading. A row has no note if its cell in the first of these
        columns is empty.
    left_out: headings that LaTeX omits. narrow: shorter headings in LaTeX. spec: the LaTeX column
        type by heading, if it is neither l nor r.
    source: the last line in Markdown and HTML.
    """

    name: str
    title: str
    legend: str
    frame: "pd.DataFrame"
    shown: "pd.DataFrame"
    text: tuple[str, ...]
    groups: list[str | None] = field(default_factory=list)
    below: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    narrow: dict[str, str] = field(default_factory=dict)
    spec: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def to_csv(self) -> str:
        """Return all columns as csv: floats with all digits, missing cells empty."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """Return title, legend and table as Markdown, with the columns aligned in the source."""
        from tabulate import tabulate

        headings, grid = list(self.shown.columns), []
        for group, rows in self._grouped():
            if group:
                grid.append([f"*{group}*"] + [""] * (len(headings) - 1))
            grid += [[cell.replace("|", "\\|") for cell in row.values()] for row in rows]
        text = tabulate(
            grid,
            headers=headings,
            tablefmt="pipe",
            colalign=["left" if heading in self.text else "right" for heading in headings],
            disable_numparse=True,
        )
        parts = [f"### {self.title}", self.legend, text, self.source]
        return "\n\n".join(filter(None, parts)) + "\n"

    def to_latex(self) -> str:
        r"""Return a table environment to \input; it needs only the package booktabs."""
        drop = {*self.below, *self.left_out}
        headings = [heading for heading in self.shown.columns if heading not in drop]
        body: list[str] = []
        notes: list[str] = []
        for group, rows in self._grouped():
            if group:
                body += [r"\midrule"] if body else []  # a rule precedes the first group anyway
                body.append(rf"\multicolumn{{{len(headings)}}}{{l}}{{\emph{{{tex(group)}}}}} \\")
            for row in rows:
                line = [_tex_cell(row[heading]) for heading in headings]
                if note := self._note(row):
                    notes += [] if note in notes else [note]
                    line[0] += rf"\textsuperscript{{{letter(notes.index(note))}}}"
                body.append(" & ".join(line) + r" \\")
        below = [rf"\textsuperscript{{{letter(i)}}}~{tex(note)}." for i, note in enumerate(notes)]
        columns = [self.spec.get(h, "l" if h in self.text else "r") for h in headings]
        return "\n".join(
            [
                r"% \usepackage{booktabs}",
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{tex(self.title)}. {tex(self.legend)}}}",
                rf"  \label{{tab:{self.name}}}",
                r"  \par\medskip\footnotesize",
                r"  \setlength{\tabcolsep}{4pt}",
                rf"  \begin{{tabular}}{{{''.join(columns)}}}",
                r"    \toprule",
                "    " + " & ".join(tex(self.narrow.get(h, h)) for h in headings) + r" \\",
                r"    \midrule",
                *("    " + line for line in body),
                r"    \bottomrule",
                r"  \end{tabular}",
                r"  \par\smallskip",
                r"  \begin{minipage}{\linewidth}",
                *("    " + note + r"\\" for note in below[:-1]),
                *("    " + note for note in below[-1:]),
                r"  \end{minipage}",
                r"\end{table}",
                "",
            ]
        )

    def to_html(self) -> str:
        """Return a table element with its caption, to be inserted into a page."""
        headings = list(self.shown.columns)
        kinds = ["text" if heading in self.text else "number" for heading in headings]

        def line(cells: list[str], tag: str) -> str:
            pairs = zip(cells, kinds, strict=True)
            inner = "".join(f'<{tag} class="{kind}">{cell}</{tag}>' for cell, kind in pairs)
            return f"<tr>{inner}</tr>"

        lines = [
            f'<table id="{html.escape(self.name)}">',
            f"<caption><strong>{html.escape(self.title)}</strong> "
            f"{html.escape(self.legend)} {html.escape(self.source)}</caption>",
            f"<thead>{line([html.escape(heading) for heading in headings], 'th')}</thead>",
        ]
        for group, rows in self._grouped():
            lines.append("<tbody>")
            if group:
                of_all = (
                    f'<th colspan="{len(headings)}" scope="rowgroup">{html.escape(group)}</th>'
                )
                lines.append(f"<tr>{of_all}</tr>")
            lines += [line([_html_cell(cell) for cell in row.values()], "td") for row in rows]
            lines.append("</tbody>")
        return "\n".join([*lines, "</table>", ""])

    def _grouped(self) -> Iterator[tuple[str | None, list[dict[str, str]]]]:
        """Yield heading and rows of each group, in the table's order."""
        groups = self.groups or [None] * len(self.shown)
        pairs = zip(groups, self.shown.to_dict("records"), strict=True)
        for group, members in groupby(pairs, key=lambda pair: pair[0]):
            yield group, [row for _, row in members]

    def _note(self, row: dict[str, str]) -> str:
        parts = [form.format(row[heading]) for heading, form in self.below.items() if row[heading]]
        first = next(iter(self.below), None)
        return "; ".join(parts) if first and row[first] else ""


def letter(index: int) -> str:
    """Return the letter of the note with this index, from 0: a, b, …, z, aa, …"""
    before = letter(index // 26 - 1) if index >= 26 else ""
    return before + chr(ord("a") + index % 26)


def _tex_cell(cell: str) -> str:
    bold = BOLD.fullmatch(cell)
    return rf"\textbf{{{tex(bold[1])}}}" if bold else tex(cell)


def _html_cell(cell: str) -> str:
    bold = BOLD.fullmatch(cell)
    return f"<strong>{html.escape(bold[1])}</strong>" if bold else html.escape(cell)


def tex(text: str) -> str:
    """Escape plain text for LaTeX; mathematical signs are set in math mode."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "≤": r"$\le$",
        "≈": r"$\approx$",
        "±": r"$\pm$",
        "<": "$<$",
        ">": "$>$",
        "−": "$-$",
        "|": "$|$",
        "‖": r"$\Vert$",
    }
    special |= {character: "\\" + character for character in "&%$#_{}"}
    text = "".join(special.get(character, character) for character in text)
    # A leading sign is set as a minus, not as a hyphen.
    return f"${text}$" if text[:1] in "+-" and text[1:2].isdigit() else text
