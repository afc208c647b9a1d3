"""Messages of the workflow's scripts: one line each, on standard error."""

import sys
from typing import NoReturn


def say(message: object) -> None:
    """Print a message as one line."""
    print(f"vlae: {message}", file=sys.stderr, flush=True)


def stop(message: object) -> NoReturn:
    """Exit with status 2, after one line that says what is wrong and what to do."""
    say(f"error: {message}")
    sys.exit(2)
