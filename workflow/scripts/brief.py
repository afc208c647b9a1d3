"""A dry run in few lines: of each expensive job its rule, outputs and wildcards.

Snakemake lists hundreds of inputs, the jobs that only draw, and reasons that are those of notes
(workflow/rules/common.smk). The true ones are printed at the end. `--verbose` shows everything.
"""

import logging

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

DRAWING = {"all", "figure", "summaries", "table"}


def install() -> None:
    """Shorten what Snakemake logs from now on."""
    for handler in logger.handlers:
        handler.addFilter(shorten)


def shorten(record: logging.LogRecord) -> bool:
    """Take out of a message what nobody asked for; False for one that is nothing else."""
    if getattr(record, "event", None) == LogEvent.JOB_INFO:
        record.__dict__.update(input=[], log=[], jobid=None, reason=None, resources={}, threads=1)
        return record.__dict__["rule_name"] not in DRAWING
    return not str(record.msg).lstrip().startswith("Reasons:")
