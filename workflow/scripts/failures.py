"""What went wrong is said on the screen, whatever Snakemake was told to leave out.

Snakemake names the log of a job that failed, but not the reason in it, and `--quiet all` hides
even its errors.
"""

import logging
import sys
from pathlib import Path

from snakemake.logging import get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent

from console import say

LINES, WIDTH = 12, 400  # of a log's end that are shown: how many, and how much of each
TAIL = 64 * 1024  # bytes of a log's end that are read


def show_errors():
    """Print Snakemake's errors under `--quiet all` too; those of jobs are `say_why`'s."""
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
            said = f"the end of {log}:" if lines else f"{log} says nothing"
            say(f"error: {what} failed; {said}")
            for line in lines:
                print(f"    {line[:WIDTH]}", file=sys.stderr, flush=True)
        if not job.log:
            say(f"error: {what} failed")


def last_lines(path):
    """The last lines of a log that are not empty; of a progress bar only its last state."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-LINES:]
