"""Messages of the workflow's scripts: one line each, on standard error."""

import sys
from typing import NoReturn


def say(message: object) -> None:
    """A line of news."""
    print(f"vlae: {message}", file=sys.stderr, flush=True)


def stop(message: object) -> NoReturn:
    """End with a line that says what is wrong and what to do, and with status 2."""
    say(f"error: {message}")
    sys.exit(2)
