"""Reads drawn tables (results/tables) back, so that the report shows just what they say."""

import csv
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from vlae.storage.read import read_text

NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
RUN_COLUMNS = ("run", "alone_run", "higher", "lower")  # of the csv: names of runs


@dataclass(frozen=True)
class Row:
    """A row: the cells as readers see them, which of them are bold, and the runs it rests on."""

    cells: list[str]
    bold: list[bool]
    runs: list[str]


@dataclass(frozen=True)
class DrawnTable:
    """A table of results/tables. numbers: which columns are right-aligned. groups: (heading or
    None, rows)."""

    name: str
    title: str
    legend: str
    headings: list[str]
    numbers: list[bool]
    groups: list[tuple[str | None, list[Row]]]

    @property
    def rows(self) -> list[Row]:
        """All rows, of all groups."""
        return [row for _, rows in self.groups for row in rows]

    def column(self, heading: str) -> int | None:
        """Return the place of a column; None if there is none of that heading."""
        return self.headings.index(heading) if heading in self.headings else None


def read_table(name: str, root: Path) -> DrawnTable | None:
    """Return table `name`, drawn under `root`, or None if it is not drawn yet."""
    page, data = (
        Path(root, "results", "tables", f"{name}.{ending}") for ending in ("html", "csv")
    )
    if not (page.exists() and data.exists()):
        return None
    parser = _Parser()
    parser.feed(read_text(page))
    records = list(csv.DictReader(read_text(data).splitlines()))
    runs = iter([_runs(record) for record in records])
    groups: list[tuple[str | None, list[Row]]] = []
    for heading, rows in parser.groups:
        found = [
            Row([text for text, _ in row], [bold for _, bold in row], next(runs, []))
            for row in rows
        ]
        groups.append((heading, found))
    legend = parser.caption.removeprefix(parser.title).strip()
    return DrawnTable(name, parser.title, legend, parser.headings, parser.numbers, groups)


def sort_key(text: str) -> float | None:
    """Return the first number in a cell, by which its column is sorted; None without one."""
    found = NUMBER.search(text)
    return float(found[0].replace(",", "").replace("−", "-")) if found else None


def _runs(record: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(filter(None, (record.get(key) for key in RUN_COLUMNS))))


@dataclass
class _Parser(HTMLParser):
    """Reads what Table.to_html writes: a caption, a heading row, and a tbody for each group."""

    title: str = ""
    caption: str = ""
    headings: list[str] = field(default_factory=list)
    numbers: list[bool] = field(default_factory=list)
    groups: list[tuple[str | None, list[list[tuple[str, bool]]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        if tag == "th" and "thead" in self.inside:
            self.headings.append("")
            self.numbers.append(("class", "number") in attrs)
        elif tag == "tbody":
            self.groups.append((None, []))
        elif tag == "tr" and "tbody" in self.inside:
            self.groups[-1][1].append([])
        elif tag == "td":
            self.groups[-1][1][-1].append(("", False))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
        if tag == "tr" and "tbody" in self.inside and not self.groups[-1][1][-1]:
            self.groups[-1][1].pop()  # the row of a group's heading has no cells

    def handle_data(self, data: str) -> None:
        if "caption" in self.inside:
            self.caption += data
            self.title += data if "strong" in self.inside else ""
        elif "thead" in self.inside and "th" in self.inside:
            self.headings[-1] += data
        elif "th" in self.inside:
            heading, rows = self.groups[-1]
            self.groups[-1] = ((heading or "") + data, rows)
        elif "td" in self.inside:
            row = self.groups[-1][1][-1]
            row[-1] = (row[-1][0] + data, "strong" in self.inside)
