"""The ways in which a file does not come from a place, and what is done about each."""

MISSING = "missing"  # it is not there: look under the next name
WRONG = "wrong"  # it is something else: look under the next name
BROKEN = "broken"  # it broke off: try again, then look under the next name
DOWN = "down"  # nobody is there: try again, then leave this server alone
BARRED = "barred"  # the way there is barred (a certificate, a proxy): leave this server alone
PASSING = (BROKEN, DOWN)
UNREACHABLE = (DOWN, BARRED)


class Failure(Exception):
    """The reason why a file did not come from a place: a few words, and one of the kinds above."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
