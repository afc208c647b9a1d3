"""Makes the images of the toy distribution of vlae.one_bit; they have no raw files."""

from pathlib import Path

from vlae import one_bit
from vlae.data.formats.splits import Counts, Splits


def read(raw: dict[str, Path], spec: dict) -> Splits:
    """Draw the splits, uint8 (N, 28, 28)."""
    return {split: one_bit.draw(split, count) for split, count in spec["splits"].items()}


def example(raw: dict[str, Path], spec: dict) -> Counts:
    """Return small numbers of images."""
    return {"train": 5, "valid": 3, "test": 4}


def files(spec: dict) -> dict[str, dict]:
    """Return the raw files: none."""
    return {}
