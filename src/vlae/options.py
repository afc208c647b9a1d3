"""Types of command-line options."""

import argparse
from collections.abc import Callable

MOST = 1e6


def positive(what: str) -> Callable[[str], float]:
    """The type of an option that is a positive number of `what`, such as seconds."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < MOST:
            raise argparse.ArgumentTypeError(f"{text!r} is no positive number of {what}")
        return value

    return number
