"""Notes of what each table and figure was drawn from, by content: recorded results, not code.

A note has the SHA-256 of the drawing's files and of the results they were drawn from. By it a
number typed into a table, the tables of another branch and what a merge has left are found,
whatever the files' times say. The notes are kept in git beside the drawings.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vlae.errors import VlaeError
from vlae.storage.read import read_json
from vlae.storage.write import sha256, write_text

FOLDER = Path("results", "drawn")


def note_file(kind: str, name: str) -> Path:
    """The note of one of the `tables` or `figures`, relative to the root."""
    return FOLDER / kind / f"{name}.json"


def write_note(
    kind: str,
    name: str,
    sources: Iterable[str | Path],
    drawings: Iterable[str | Path],
    root: Path | str = ".",
) -> None:
    """Write the note of a drawing that has just been made; all paths are relative to `root`."""
    content = {"from": _digests(sources, root), "drawn": _digests(drawings, root)}
    write_text(Path(root, note_file(kind, name)), json.dumps(content, indent=1) + "\n")


def agrees(
    kind: str, name: str, sources: Iterable[str | Path], drawings: Iterable[str | Path]
) -> bool:
    """Return True if the drawings are as they were drawn, and from these results as they are."""
    return next(differences(kind, name, sources, drawings), None) is None


def differences(
    kind: str,
    name: str,
    sources: Iterable[str | Path],
    drawings: Iterable[str | Path],
    root: Path | str = ".",
) -> Iterator[str]:
    """What is not as the note says, a line for each file; nothing if all is."""
    note = note_file(kind, name)
    try:
        noted = read_json(Path(root, note))
    except VlaeError:
        noted = None  # none, or what a merge has left of it
    if not (isinstance(noted, dict) and all(_is_digests(noted.get(k)) for k in ("from", "drawn"))):
        yield f"{note} is missing or damaged"
        return
    yield from _compare(
        noted["drawn"],
        _digests(drawings, root),
        changed="{} is not as it was drawn",
        gone="{} is missing",
        new="{} is not in its note",
    )
    yield from _compare(
        noted["from"],
        _digests(sources, root),
        changed="drawn from another {}",
        gone="drawn from {}, which is not there",
        new="drawn without {}",
    )


def _compare(
    noted: dict[str, str], found: dict[str, str], changed: str, gone: str, new: str
) -> Iterator[str]:
    for path in sorted(noted.keys() | found.keys()):
        if path not in found:
            yield gone.format(path)
        elif path not in noted:
            yield new.format(path)
        elif noted[path] != found[path]:
            yield changed.format(path)


def _digests(files: Iterable[str | Path], root: Path | str) -> dict[str, str]:
    """The SHA-256 of each file that is there, by its path."""
    paths = sorted({Path(file).as_posix() for file in files})
    return {path: sha256(Path(root, path)) for path in paths if Path(root, path).is_file()}


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
