"""Notes that say from which recorded results each table and figure was drawn.

A note has the SHA-256 of the drawing's files and of the results they were drawn from. It reveals a
number typed into a table, tables of another branch and the leftovers of a merge, whatever the
modification times are. The notes are kept in git beside the drawings.
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
    """Return the path of the note of a drawing; kind is "tables", "figures" or "summaries"."""
    return FOLDER / kind / f"{name}.json"


def write_note(
    kind: str,
    name: str,
    sources: Iterable[str | Path],
    drawings: Iterable[str | Path],
    root: Path | str = ".",
) -> None:
    """Write the note of a new drawing; all paths are relative to `root`."""
    content = {"from": _digests(sources, root), "drawn": _digests(drawings, root)}
    write_text(Path(root, note_file(kind, name)), json.dumps(content, indent=1) + "\n")


def agrees(
    kind: str, name: str, sources: Iterable[str | Path], drawings: Iterable[str | Path]
) -> bool:
    """Return True if neither the drawings nor their sources have changed since they were drawn."""
    return next(differences(kind, name, sources, drawings), None) is None


def differences(
    kind: str,
    name: str,
    sources: Iterable[str | Path],
    drawings: Iterable[str | Path],
    root: Path | str = ".",
) -> Iterator[str]:
    """Yield a line for each file that is not as the note says."""
    note = note_file(kind, name)
    try:
        noted = read_json(Path(root, note))
    except VlaeError:
        noted = None  # missing, or damaged by a merge
    if not (isinstance(noted, dict) and all(_is_digests(noted.get(k)) for k in ("from", "drawn"))):
        yield f"{note} is missing or damaged"
        return
    yield from _compare(
        noted["drawn"],
        _digests(drawings, root),
        changed="{} has changed since it was drawn",
        gone="{} is missing",
        new="{} is not in its note",
    )
    yield from _compare(
        noted["from"],
        _digests(sources, root),
        changed="drawn from another version of {}",
        gone="drawn from {}, which is missing",
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
    """Return the SHA-256 of each existing file, by path."""
    paths = sorted({Path(file).as_posix() for file in files})
    return {path: sha256(Path(root, path)) for path in paths if Path(root, path).is_file()}


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
