"""Log messages of the package, by the standard library's logging.

Every module logs to `vlae.…`. Nothing is shown before `to_stderr` is called, as the command line
does.
"""

import logging
import sys
from typing import TextIO

LOGGER = logging.getLogger("vlae")


class _Stderr(logging.StreamHandler):
    """Writes to the present sys.stderr, which may have been redirected since the start."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def to_stderr() -> None:
    """Show every message as a line on standard error; warnings begin with "vlae: warning:"."""
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        handler = _Stderr()
        handler.setFormatter(_Line())
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        warning = record.levelno >= logging.WARNING
        return f"vlae: warning: {record.getMessage()}" if warning else record.getMessage()
