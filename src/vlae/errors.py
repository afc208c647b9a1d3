"""The exception for bad input, helpers for its messages, and exit statuses."""

from collections.abc import Iterable
from difflib import get_close_matches

BAD_INPUT = 2
INTERRUPTED = 130  # as a shell reports Ctrl-C
STOPPED = 75  # EX_TEMPFAIL: stopped at the time limit, state saved; the same command continues

LONGEST = 1500  # characters of a message, which may quote a hostile file
NEAREST = 3  # names that are suggested in place of a wrong one
LONGEST_NAME = 100  # characters of a wrong name that are compared with the right ones


class VlaeError(Exception):
    """Bad input. The command line prints the message, one line, and exits with 2."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


def one_line(message: object) -> str:
    """Return a message as one line of printable characters, cut if it is too long."""
    text = str(message)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def nearest(name: object, known: Iterable[object]) -> str:
    """Return "did you mean 'a' or 'b'?" for known names that resemble or contain `name`.

    Returns "" if there are none.
    """
    if not isinstance(name, str) or not name:
        return ""
    text, names = name.lower()[:LONGEST_NAME], [one for one in known if isinstance(one, str)]
    near = get_close_matches(text, names, NEAREST) or [one for one in names if text in one]
    return f"did you mean {' or '.join(map(repr, near[:NEAREST]))}?" if near else ""


def suggestion(name: object, known: Iterable[object], otherwise: str = "there are") -> str:
    """Return the end of a message about a wrong name: similar names, or else all known names."""
    names = list(known)
    return nearest(name, names) or f"{otherwise}: {', '.join(map(str, names)) or 'none'}"
