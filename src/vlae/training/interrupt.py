"""Stops a training early: on a signal, or when its time limit is reached."""

import math
import signal
import time

CLOCK_RESERVE = 30  # seconds reserved for saving a checkpoint before the limit


class Interrupt:
    """Set by SIGTERM, SIGINT or the time limit; queried after each step."""

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
        """Return True once the work has to stop; `reason` then says why."""
        if self.reason is None and time.monotonic() >= self.deadline:
            self.reason = "the clock"
        return self.reason is not None

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
