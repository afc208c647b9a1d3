"""The source files that a module of vlae depends on, found by reading import statements."""

import ast
from pathlib import Path

PACKAGE = "vlae"


def source_files(module: str, source: Path) -> list[Path]:
    """Files of `module` and of all modules of the package that it imports, directly or not.

    Imports inside functions count, those for type checkers do not. `source` is the folder that
    has the package. Raises FileNotFoundError for a module that is not there.
    """
    found: dict[str, Path] = {}
    left = [module]
    while left:
        name = left.pop()
        if name in found:
            continue
        path = _path(name, source)
        if path is None:
            raise FileNotFoundError(f"no module {name} in {source}")
        found[name] = path
        parents = name.split(".")[:-1]
        left += [".".join(parents[: i + 1]) for i in range(len(parents))]
        left += [name for name in _imported(path) if _path(name, source)]
    return sorted(found.values())


def _path(module: str, source: Path) -> Path | None:
    base = source.joinpath(*module.split("."))
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def _imported(path: Path) -> list[str]:
    """Names that may be modules of the package: `from vlae.nn import elu` gives both."""
    names, left = [], [ast.parse(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]
