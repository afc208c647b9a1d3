"""The one exception that means: the input is at fault, not the program; and exit statuses."""

BAD_INPUT = 2
INTERRUPTED = 130  # as a shell says it of Ctrl-C
STOPPED = 75  # EX_TEMPFAIL: stopped at the clock with the state saved; run again to go on

LONGEST = 1500  # characters of a message; a hostile file could ask for any number


class VlaeError(Exception):
    """Bad input, told in one line; the command line prints it and exits with 2."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


def one_line(message: object) -> str:
    """A message as one line of printable characters, cut where it gets too long."""
    text = str(message)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
