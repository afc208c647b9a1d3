"""Times functions alternately, so that other load on the machine affects all of them alike."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Times:
    """Seconds of each run of one function."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_dict(self) -> dict:
        return {
            "median_s": round(self.median, 6),
            "min_s": round(min(self.seconds), 6),
            "max_s": round(max(self.seconds), 6),
            "runs": len(self.seconds),
        }


def once(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(*functions: Callable[[], object], runs: int, warm_up: int = 1) -> list[Times]:
    """Time each function `runs` times, A B A B …, after `warm_up` rounds that do not count."""
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in tqdm(range(-warm_up, runs), leave=False, disable=None):
        for function, times in zip(functions, seconds, strict=True):
            spent = once(function)
            if turn >= 0:
                times.append(spent)
    return [Times(tuple(times)) for times in seconds]


def ratio(slow: Times, fast: Times, slow_work: float = 1, fast_work: float = 1) -> dict:
    """Return the speed of `fast` over that of `slow`: median over pairs of runs, and range."""
    scale = fast_work / slow_work
    pairs = [s / f * scale for s, f in zip(slow.seconds, fast.seconds, strict=True)]
    return {
        "ratio": round(statistics.median(pairs), 2),
        "ratio_min": round(min(pairs), 2),
        "ratio_max": round(max(pairs), 2),
        "baseline": slow.as_dict(),
        "ours": fast.as_dict(),
    }


def load() -> float:
    """Return the load average of the last minute, a measure of other programs' activity."""
    return round(os.getloadavg()[0], 2)
