"""results/reliability.md: what was done to the workflow, and what became of it.

Each section is a file results/reliability/NAME.json with a title, an introduction and rows,
written by the tests that measured them (`pytest --record-figures`, with hostile input
`VLAE_FUZZ=10 pytest`). The report is drawn from all of them; a row that is measured again takes
the place of the old one, but those of remotes are written as a whole: run all of
tests/workflow/test_remote_storage.py.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TITLE = (
    "# What it survives\n\n"
    "Written by the tests, which also check it (`make test-cluster`, `make test-slow`).\n"
)


def record(name: str, title: str, introduction: str, row: dict[str, str]) -> None:
    """Put a row (column -> cell; the first one names it) in its section, and draw the report."""
    with _locked():
        rows = rows_of(name)
        key = next(iter(row))
        there = [i for i, other in enumerate(rows) if other.get(key) == row[key]]
        if there:
            rows[there[0]] = row
        else:
            rows.append(row)
        _write(name, {"title": title, "introduction": introduction, "rows": rows})


def rows_of(name: str) -> list[dict]:
    """The rows that a section has, none where there is no such section yet."""
    path = PROJECT / "results" / "reliability" / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def write_section(name: str, title: str, introduction: str, rows: list[dict]) -> None:
    """Write a section as a whole, and draw the report."""
    with _locked():
        _write(name, {"title": title, "introduction": introduction, "rows": rows})


@contextmanager
def _locked() -> Iterator[None]:
    """Tests may run side by side."""
    folder = PROJECT / "results" / "reliability"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(name: str, section: dict) -> None:
    path = PROJECT / "results" / "reliability" / f"{name}.json"
    path.write_text(json.dumps(section, indent=2, ensure_ascii=False) + "\n")
    draw(path.parent)


def draw(folder: Path) -> None:
    sections = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    report = "\n".join([TITLE, *map(markdown, sections)])
    (folder.parent / "reliability.md").write_text(report)


def markdown(section: dict) -> str:
    columns = list(dict.fromkeys(column for row in section["rows"] for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row.get(column, "")) for column in columns] for row in section["rows"]]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {section['title']}\n\n{section['introduction']}\n\n{table}\n"
