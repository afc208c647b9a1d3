"""A table as csv for machines, as Markdown for GitHub and as LaTeX for a paper.

All three take the pandas.DataFrame of vlae.report.tables.paper_table.build_table.
"""

from itertools import groupby

from tabulate import tabulate

from vlae.report.paper import PaperRow, PaperTable
from vlae.units import rounded, rounded_error

HEADERS = {
    "model": "Model",
    "paper": "Paper",
    "ours": "Ours",
    "standard_error": "± s.e.",
    "seeds": "Seeds",
    "spread": "Spread",
    "difference": "Difference",
    "kl_paper": "KL, paper",
    "kl_ours": "KL, ours",
    "epochs": "Epochs",
    "importance_samples": "Importance samples",
    "hardware": "Hardware",
    "test_images": "Test images",
    "note": "Note",
}
LEFT = ("model", "hardware", "note")  # text; the other columns are numbers, set to the right
LATEX_HEADERS = HEADERS | {"difference": "Diff.", "importance_samples": "IS"}  # narrow columns
FOOTNOTE = ("note", "test_images", "hardware")  # in LaTeX these stand below the table


def to_csv(frame) -> str:
    """Every column, floats with all their digits, missing cells empty."""
    return frame.to_csv(index=False, lineterminator="\n")


def to_markdown(frame, table: PaperTable, citation: str) -> str:
    """A titled table whose source is aligned too; rows that are ours to reproduce are bold."""
    keys = _shown(frame)
    grid = []
    for group, rows in _groups(frame, table):
        if group:
            grid.append([f"*{group}*"] + [""] * (len(keys) - 1))
        for cells, row in rows:
            if row.run:
                cells["model"] = f"**{cells['model']}**"
            grid.append([cells[key].replace("|", "\\|") for key in keys])
    text = tabulate(
        grid,
        headers=[HEADERS[key] for key in keys],
        tablefmt="pipe",
        colalign=["left" if key in LEFT else "right" for key in keys],
        disable_numparse=True,
    )
    return (
        f"### {_title(table)}\n\n{_legend(table, keys, frame)}\n\n{text}\n\nPaper: {citation}.\n"
    )


def to_latex(frame, table: PaperTable) -> str:
    r"""A table environment to \input; it needs the package booktabs and nothing else.

    What is too long for a column (note, test images, hardware) stands below the table, once
    for all rows that share it.
    """
    keys = [key for key in _shown(frame) if key not in FOOTNOTE]
    footnotes: list[str] = []
    body = []
    for group, rows in _groups(frame, table):
        if group:
            body += [r"\midrule"] if body else []  # the first stands below a rule already
            body.append(rf"\multicolumn{{{len(keys)}}}{{l}}{{\emph{{{tex(group)}}}}} \\")
        for cells, row in rows:
            line = [tex(cells[key]) for key in keys]
            if row.run:
                line[0] = rf"\textbf{{{line[0]}}}"
            if cells["note"]:
                footnote = _footnote(cells)
                if footnote not in footnotes:
                    footnotes.append(footnote)
                line[0] += rf"\textsuperscript{{{letter(footnotes.index(footnote))}}}"
            body.append(" & ".join(line) + r" \\")
    columns = "".join("l" if key in LEFT else "r" for key in keys)
    notes = [
        rf"\textsuperscript{{{letter(i)}}}~{tex(footnote)}."
        for i, footnote in enumerate(footnotes)
    ]
    caption = f"{tex(_title(table))}. {tex(_legend(table, keys, frame))}"
    header = [tex(LATEX_HEADERS[key]) for key in keys]
    return latex_table(caption, table.name, columns, header, body, notes)


def latex_table(
    caption: str, label: str, columns: str, header: list[str], body: list[str], notes: list[str]
) -> str:
    """A LaTeX table of finished cells (escaped already), its notes below."""
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{tab:{label}}}",
            r"  \par\medskip\footnotesize",
            r"  \setlength{\tabcolsep}{4pt}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            "    " + " & ".join(header) + r" \\",
            r"    \midrule",
            *("    " + line for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \par\smallskip",
            r"  \begin{minipage}{\linewidth}",
            *("    " + note + r"\\" for note in notes[:-1]),
            *("    " + note for note in notes[-1:]),
            r"  \end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _title(table: PaperTable) -> str:
    return f"{table.title} ({table.source} of the paper)"


def _legend(table: PaperTable, keys: list[str], frame) -> str:
    """What the table shows, and each sign that stands in it."""
    sentences = [
        f"Test negative log-likelihood in {table.unit}, lower is better.",
        "Bold: rows reproduced here, the others are quoted.",
        "Difference: ours − paper.",
    ]
    if "kl_paper" in keys or "kl_ours" in keys:
        sentences.append("KL(q(z|x) ‖ p(z)) in nats per image.")
    if bounds := sorted({row.bound for row in table.rows} - {"none"}):
        sentences.append(f"{' and '.join(bounds)}: upper bound, as printed.")
    if frame["importance_samples"].str.contains(" on ", na=False).any():
        sentences.append(
            "Importance samples, where two numbers stand: the first for every test image, the "
            "second for so many images drawn at random, which correct the mean."
        )
    if "spread" in keys:
        sentences.append(
            "Seeds, where more than one: ours is the mean over so many trainings, the spread "
            "the standard deviation among them."
        )
    if any(row.derived or row.kl_derived for row in table.rows):
        sentences.append("≈: derived here from printed numbers.")
    return " ".join(sentences)


def _shown(frame) -> list[str]:
    """The columns for readers: those of the KL and the seeds only where they say anything."""
    optional = [key for key in HEADERS if key.startswith("kl_") or key == "spread"]
    empty = {key for key in optional if frame[key].isna().all()}
    return [
        key for key in HEADERS if key not in empty | ({"seeds"} if "spread" in empty else set())
    ]


def _groups(frame, table: PaperTable):
    """(heading or None, [(cells as text, row of the paper), ...]) in the table's order."""
    # Missing cells are pandas' NA in some columns; object columns with None are simpler to read.
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    pairs = zip(records, table.rows, strict=True)
    for group, rows in groupby(pairs, key=lambda pair: pair[1].group):
        yield group, [(_cells(record, row), row) for record, row in rows]


def _cells(record: dict, row: PaperRow) -> dict[str, str]:
    cells = {key: "" if record[key] is None else str(record[key]) for key in HEADERS}
    for key in ("ours", "kl_ours"):
        cells[key] = rounded(record[key])
    for key in ("standard_error", "spread"):
        cells[key] = rounded_error(record[key])
    cells["difference"] = rounded(record["difference"], sign="+")
    cells["kl_paper"] = ("≈ " if row.kl_derived else "") + rounded(record["kl_paper"])
    cells["paper"] = rounded(record["paper"])
    if row.derived:  # two decimals would claim a precision that the printed numbers lack
        cells["paper"] = f"{record['paper']:g}"
    if record["test_images"] is not None:
        cells["test_images"] = f"{record['test_images']:,}"
    if row.value is not None and record["bound"]:
        cells["paper"] = f"{record['bound']} {cells['paper']}"
    if row.reference:
        cells["model"] += f" ({row.reference})"
    return cells


def _footnote(cells: dict[str, str]) -> str:
    details = [cells["note"]]
    if cells["test_images"]:
        details.append(f"{cells['test_images']} test images")
    if cells["hardware"]:
        details.append(cells["hardware"])
    return "; ".join(details)


def letter(index: int) -> str:
    return chr(ord("a") + index)


def tex(text: str) -> str:
    """Plain text as LaTeX; signs that are not letters go into maths."""
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
    # A leading sign is a minus, not a hyphen.
    return f"${text}$" if text[:1] in "+-" and text[1:2].isdigit() else text
