"""Shortens the output of a dry run to the rule, outputs and wildcards of each expensive job.

Snakemake lists hundreds of inputs, jobs that only draw, and reasons that only name auxiliary files
(workflow/rules/common.smk). The real reasons are printed at the end. `--verbose` shows everything.
"""

import logging

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

DRAWING = {"all", "figure", "summaries", "table"}
MOST = 8  # outputs of a job; `restore` has hundreds


def install() -> None:
    """Shorten the log messages of Snakemake from now on."""
    for handler in logger.handlers:
        handler.addFilter(shorten)


def shorten(record: logging.LogRecord) -> bool:
    """Remove unneeded parts of a message; return False to drop it completely."""
    if getattr(record, "event", None) == LogEvent.JOB_INFO:
        record.__dict__.update(input=[], log=[], jobid=None, reason=None, resources={}, threads=1)
        if len(outputs := record.__dict__["output"]) > MOST:
            record.__dict__["output"] = [f"{outputs[0]} and {len(outputs) - 1} more files"]
        return record.__dict__["rule_name"] not in DRAWING
    return not str(record.msg).lstrip().startswith("Reasons:")
