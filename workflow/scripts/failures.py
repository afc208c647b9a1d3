"""Shows on the screen why jobs failed.

Snakemake names the log of a failed job but not the reason in it, and `--quiet all` hides even
Snakemake's errors.
"""

import logging
import sys
from pathlib import Path

from snakemake.logging import get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent

from console import say

LINES, WIDTH = 12, 400  # last lines of a log that are shown, and characters of each
TAIL = 64 * 1024  # bytes read from the end of a log


def show_errors():
    """Print Snakemake's errors in spite of `--quiet all`; `say_why` prints those of jobs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.ERROR)
    of_jobs = {LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR}
    handler.addFilter(lambda record: get_event(record) not in of_jobs)
    logger.addHandler(handler)


def say_why(failed):
    """Show the end of each log of the jobs (or groups of jobs) that failed."""
    for job in [one for group in failed for one in getattr(group, "jobs", [group])]:
        values = " ".join(map(str, job.wildcards))
        what = f"{job.rule.name} {values}".strip()
        for log in job.log:
            lines = last_lines(Path(log))
            said = f"the end of {log}:" if lines else f"{log} is empty"
            say(f"error: {what} failed; {said}")
            for line in lines:
                print(f"    {line[:WIDTH]}", file=sys.stderr, flush=True)
        if not job.log:
            say(f"error: {what} failed")


def last_lines(path):
    """Return the last non-empty lines of a log, with only the last state of a progress bar."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-LINES:]
