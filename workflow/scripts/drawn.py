"""What each table and figure was drawn from, by content: recorded results, not code.

    python workflow/scripts/drawn.py RECORD --from FILE ... --drawn FILE ...

writes the SHA-256 of all these files. `agrees` says whether they still have them: a number typed
into a table, the tables of another branch and what a merge has left are found so, whatever the
files' times say. The records are kept in git beside the drawings.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("results", "drawn")


def record_of(kind: str, name: str) -> Path:
    """The file that says what one of the `tables`, `figures` or `summaries` was drawn from."""
    return FOLDER / kind / f"{name}.json"


def digests(files: Iterable[str | Path]) -> dict[str, str | None]:
    """The SHA-256 of each file by its path, None for one that is not there."""
    found: dict[str, str | None] = {}
    for path in sorted({Path(file).as_posix() for file in files}):
        try:
            found[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except FileNotFoundError:
            found[path] = None
    return found


def content(sources: Iterable[str | Path], drawings: Iterable[str | Path]) -> dict:
    """The content of a record, as things are now."""
    return {"from": digests(sources), "drawn": digests(drawings)}


def agrees(record: Path, sources: Iterable[str | Path], drawings: Iterable[str | Path]) -> bool:
    """Return True if the drawings are as they were drawn, and from these files as they are."""
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or what a merge has left of it
        return False
    return recorded == content(sources, drawings)


def main() -> None:
    """Write a record."""
    parser = argparse.ArgumentParser(description="record what a drawing was drawn from")
    parser.add_argument("record", type=Path)
    parser.add_argument("--from", dest="sources", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--drawn", nargs="+", required=True, metavar="FILE")
    options = parser.parse_args()
    text = json.dumps(content(options.sources, options.drawn), indent=1) + "\n"
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
