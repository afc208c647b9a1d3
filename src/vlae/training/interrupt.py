"""Stopping before the work is done: at a signal, or when the clock has run out."""

import math
import signal
import time

CLOCK_RESERVE = 30  # seconds kept back for stopping with a checkpoint


class Interrupt:
    """Set by SIGTERM or SIGINT, or when the clock has run out; asked after each step."""

    def __init__(self, started: float, minutes: float | None) -> None:
        self.deadline = math.inf
        if minutes is not None:
            reserve = min(CLOCK_RESERVE, 12 * minutes)  # a fifth of a very short limit
            self.deadline = started + 60 * minutes - reserve
        self.reason: str | None = None
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: object) -> None:
        self.reason = signal.Signals(number).name

    def due(self) -> bool:
        """True from the moment on at which the work is to stop; `reason` says why."""
        if self.reason is None and time.monotonic() >= self.deadline:
            self.reason = "the clock"
        return self.reason is not None

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
