"""Python's structures have the fields of the C++ headers, in their order and of their sizes."""

import ctypes
import re

import pytest

from miniature import PROJECT
from vlae.native import structures

NATIVE = PROJECT / "src" / "vlae" / "native"
SIZES = {"int32_t": 4, "int64_t": 8, "pointer": 8}


def declared(header: str, name: str) -> list[tuple[str, int]]:
    """(field, bytes) of a structure of plain numbers and pointers."""
    body = re.search(rf"struct {name} \{{(.*?)\}};", (NATIVE / header).read_text(), re.DOTALL)[1]
    fields = []
    for statement in re.sub(r"//[^\n]*", "", body).split(";"):
        if not statement.strip():
            continue
        kind = re.match(r"\s*(?:const )?(\w+)(\s*\*)?", statement)
        for part in statement[kind.end() :].split(","):
            pointer = bool(kind[2]) or "*" in part
            size = SIZES["pointer" if pointer else kind[1]]
            fields.append((part.strip(" *\n"), size))
    return fields


@pytest.mark.parametrize(
    ("header", "structure"),
    [
        ("network.h", structures.OpRow),
        ("weights.h", structures.WeightEntry),
        ("weights.h", structures.StepEntry),
    ],
)
def test_fields_are_those_of_the_header(header, structure):
    ours = [(name, ctypes.sizeof(kind)) for name, kind in structure._fields_]
    assert ours == declared(header, structure.__name__)
    assert ctypes.sizeof(structure) == sum(size for _, size in ours)  # no padding
