"""The kinds of failed downloads, and what is done about each."""

MISSING = "missing"  # there is no such file: try the next name
WRONG = "wrong"  # it is another file: try the next name
BROKEN = "broken"  # the connection broke off: try again, then try the next name
DOWN = "down"  # the server does not answer: try again, then give up this server
BARRED = "barred"  # a certificate or proxy prevents access: give up this server
PASSING = (BROKEN, DOWN)
UNREACHABLE = (DOWN, BARRED)


class Failure(Exception):
    """A failed download: the reason in a few words, and one of the kinds above."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
