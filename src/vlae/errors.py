"""The one exception that means: the input is at fault, not the program; and exit statuses."""

from collections.abc import Iterable
from difflib import get_close_matches

BAD_INPUT = 2
INTERRUPTED = 130  # as a shell says it of Ctrl-C
STOPPED = 75  # EX_TEMPFAIL: stopped at the clock with the state saved; run again to go on

LONGEST = 1500  # characters of a message; a hostile file could ask for any number
NEAREST = 3  # names that are suggested in the place of a wrong one
LONGEST_NAME = 100  # characters of a wrong name that are compared with the right ones


class VlaeError(Exception):
    """Bad input, told in one line; the command line prints it and exits with 2."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


def one_line(message: object) -> str:
    """A message as one line of printable characters, cut where it gets too long."""
    text = str(message)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def nearest(name: object, known: Iterable[object]) -> str:
    """Return "did you mean 'a' or 'b'?" for the known names that resemble `name` or contain it, ""
    if there are none."""
    if not isinstance(name, str) or not name:
        return ""
    text, names = name.lower()[:LONGEST_NAME], [one for one in known if isinstance(one, str)]
    near = get_close_matches(text, names, NEAREST) or [one for one in names if text in one]
    return f"did you mean {' or '.join(map(repr, near[:NEAREST]))}?" if near else ""


def suggestion(name: object, known: Iterable[object], otherwise: str = "there are") -> str:
    """The end of a message about a wrong name: those that it resembles, else all known ones."""
    names = list(known)
    return nearest(name, names) or f"{otherwise}: {', '.join(map(str, names)) or 'none'}"
