"""Modules that lie in folders which are no packages."""

import importlib.util
import sys
from types import ModuleType

from miniature import PROJECT


def script(name: str, folder: str = "workflow/scripts") -> ModuleType:
    """A module of a folder that is no package."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(PROJECT / folder))  # where it finds those beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
