"""Imports between the rooms of src/vlae point one way (docs/architecture.md)."""

import ast

import pytest

from miniature import PROJECT

SOURCE = PROJECT / "src" / "vlae"
# What each room may import, beside the modules that belong to none.
ALLOWED = {
    "storage": set(),
    "data": {"storage"},
    "config": {"data", "storage"},
    "native": {"storage"},
    "nn": {"native"},
    "models": {"storage", "data", "config", "native", "nn"},
    "training": {"storage", "data", "config", "native", "models"},
    "evaluation": {"storage", "data", "config", "models"},
    "coding": {"storage", "data", "config", "nn", "models", "evaluation"},
    # Params for type checkers; the errors of decompressions, and the classifier that judges them.
    "report": {"storage", "config", "evaluation"},
    "library": {"storage", "data", "config", "models", "evaluation", "report"},
}
# Modules outside of the rooms: what they may import of them, everything included.
COMMANDS = {"cli", "recipes", "__main__", "__init__"}


def imported(path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] == "vlae"]
    return {part[1] for part in parts if len(part) > 1}


def test_these_are_all_rooms():
    assert {p.parent.name for p in SOURCE.glob("*/__init__.py")} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_stands_before_it(room):
    used = set().union(*(imported(path) for path in (SOURCE / room).rglob("*.py")))
    assert used & set(ALLOWED) <= ALLOWED[room] | {room}


def test_what_belongs_to_no_room_imports_none():
    for path in SOURCE.glob("*.py"):
        if path.stem not in COMMANDS:
            assert not imported(path) & set(ALLOWED), path.name


def test_no_file_is_longer_than_its_reason():
    """About 350 lines; a longer one says here why."""
    reasons = {
        "cli.py": "a function for each command",
        "data/download.py": "what servers do wrong, each with its line",
        "data/formats/omniglot.py": "fifty names of alphabets",
    }
    lengths = {
        str(p.relative_to(SOURCE)): len(p.read_text().splitlines()) for p in SOURCE.rglob("*.py")
    }
    assert {name for name, lines in lengths.items() if lines > 360} <= set(reasons)


def test_no_function_is_longer_than_eighty_lines():
    long = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > 80:
                    long[f"{path.relative_to(SOURCE)}:{node.name}"] = lines
    assert long == {}
