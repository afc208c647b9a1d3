"""Checks values from files that people write: type, range and choices."""

import re
import typing
from typing import Any

from vlae.errors import VlaeError, suggestion
from vlae.storage.read import shown

NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*(-[a-z0-9_]+)?")
LONGEST_NAME = 100


def check_name(name: object, where: str) -> None:
    """Raise VlaeError unless `name` can be part of a file name; `where` is for the message."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise VlaeError(
            f"{where}: {shown(name)} is not a valid name, which may have lower-case letters, "
            "digits, _ and one -, because it becomes part of file names"
        )


def mapping(value: object, where: str, keys: set[str] | None = None) -> dict:
    """Return `value` if it is a mapping with exactly `keys`, or with any keys if that is None.

    Raises VlaeError, naming `where` and the key, otherwise.
    """
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
    """Return `value` if it is of this type and within `limits`: choices, low, high, above.

    Raises VlaeError, naming `where`, otherwise. A float may be written as an integer, and a tuple
    is written as a list. Text has to be printable.
    """
    limits = limits or {}
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            raise VlaeError(f"{where} must be a list, not {shown(value)}")
        item = typing.get_args(kind)[0]
        return tuple(checked(item, v, f"{where}[{i}]", limits) for i, v in enumerate(value))
    if type(value) is int and abs(value) >= 2**63:
        raise VlaeError(f"{where} must be a 64-bit number, not {shown(value)}")
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
