"""How bad input is refused: one line that begins with the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vlae.errors import VlaeError


def refusal(path: Path, read: Callable, *arguments, **options) -> str:
    """What the VlaeError of read(*arguments, **options) says of the file, without its name."""
    with pytest.raises(VlaeError) as caught:
        read(*arguments, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")
