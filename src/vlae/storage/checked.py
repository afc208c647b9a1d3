"""Values that people write into files, checked one by one: type, range, choice."""

import re
import typing
from typing import Any

from vlae.errors import VlaeError, suggestion
from vlae.storage.read import shown

NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*(-[a-z0-9_]+)?")
LONGEST_NAME = 100


def check_name(name: object, where: str) -> None:
    """Raise VlaeError unless the name may become part of file names."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise VlaeError(
            f"{where}: {shown(name)} is no valid name (lower case, digits, _ and one -): "
            "it becomes part of file names"
        )


def mapping(value: object, where: str, keys: set[str] | None = None) -> dict:
    """The value, if it is a mapping that has exactly `keys`, where those are given. Raises
    VlaeError, naming `where` and the key, otherwise."""
    if not isinstance(value, dict):
        raise VlaeError(f"{where} must be a mapping, not {shown(value)}")
    if keys is not None:
        for key in value:
            if key not in keys:
                hint = suggestion(key, sorted(keys), "known")
                raise VlaeError(f"{where}: unknown key {shown(key)}; {hint}")
        for key in sorted(keys):
            if key not in value:
                raise VlaeError(f"{where}: key {key!r} is missing")
    return value


def checked(kind: Any, value: Any, where: str, limits: typing.Mapping | None = None) -> Any:
    """The value, if it is of this kind and within `limits`: choices, low, high, above.

    `where` names it in the VlaeError that is raised otherwise. A float may be written as an
    integer; a tuple is written as a list. Text has to be printable.
    """
    limits = limits or {}
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            raise VlaeError(f"{where} must be a list, not {shown(value)}")
        item = typing.get_args(kind)[0]
        return tuple(checked(item, v, f"{where}[{i}]", limits) for i, v in enumerate(value))
    if type(value) is int and abs(value) >= 2**63:
        raise VlaeError(f"{where} must be a number of 64 bits, not {shown(value)}")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if kind is float else ""
        raise VlaeError(f"{where} must be {kind.__name__}, not {shown(value)}{hint}")
    if kind is str and not value.isprintable():
        raise VlaeError(f"{where} must be printable text, not {shown(value)}")
    if kind is float and value != value:
        raise VlaeError(f"{where} must be a number, not {shown(value)}")
    if kind is float and abs(value) == float("inf"):
        raise VlaeError(f"{where} must be finite, not {shown(value)}")
    if "choices" in limits and value not in limits["choices"]:
        choices = ", ".join(limits["choices"])
        raise VlaeError(f"{where} must be one of {choices}, not {shown(value)}")
    low, high, above = (limits.get(k) for k in ("low", "high", "above"))
    if low is not None and value < low:
        raise VlaeError(f"{where} must be at least {low}, not {shown(value)}")
    if high is not None and value > high:
        raise VlaeError(f"{where} must be at most {high}, not {shown(value)}")
    if above is not None and value <= above:
        raise VlaeError(f"{where} must be greater than {above}, not {shown(value)}")
    return value
