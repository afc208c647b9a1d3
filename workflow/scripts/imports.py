"""Finds the source files that a module of vlae depends on, from import statements."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = "vlae"


def source_files(module: str, source: Path) -> list[Path]:
    """Return the files of `module` and of all package modules it imports, directly or indirectly.

    Imports inside functions count; imports only for type checkers do not. `source` is the folder
    with the package. Raises FileNotFoundError for a missing module.
    """
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        path = _path(name, source)
        if path is None:
            raise FileNotFoundError(f"no module {name} in {source}")
        found[name] = path
        parents = name.split(".")[:-1]
        pending += [".".join(parents[: i + 1]) for i in range(len(parents))]
        pending += [name for name in _imported(path) if _path(name, source)]
    return sorted(found.values())


def _path(module: str, source: Path) -> Path | None:
    base = source.joinpath(*module.split("."))
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


@cache
def _imported(path: Path) -> list[str]:
    """Return names that may be modules of the package.

    `from vlae.nn import elu` gives vlae.nn and vlae.nn.elu.
    """
    names, pending = [], [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]
