"""Messages of the package while it works, through the standard library's logging.

Every module logs to `vlae.…`; nothing is shown until somebody asks for it, as the command line
does with `to_stderr`.
"""

import logging
import sys
from typing import TextIO

LOGGER = logging.getLogger("vlae")


class _Stderr(logging.StreamHandler):
    """Writes to standard error as it is at the time, which may have been redirected since."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def to_stderr() -> None:
    """Show every message as a line on standard error, and warnings as such."""
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        handler = _Stderr()
        handler.setFormatter(_Line())
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        warning = record.levelno >= logging.WARNING
        return f"vlae: warning: {record.getMessage()}" if warning else record.getMessage()
