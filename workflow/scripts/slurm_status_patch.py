"""A patch of snakemake-executor-plugin-slurm 2.8, for a SLURM that does not answer for a while.

The plugin forgets all its jobs when the question about their states fails five times in a
row, and waits for them for ever. Here a question without an answer says nothing about any
job, so that the next one, a little later, is asked about all of them. Replaced:
snakemake_executor_plugin_slurm.query_job_status. tests/workflow/test_patches.py fails when it is
not there any more.
"""

import sys

PLUGIN = "snakemake_executor_plugin_slurm"


def install():
    """Patch the plugin if Snakemake has loaded it, as it does with all that are installed."""
    plugin = sys.modules.get(PLUGIN)
    if plugin is None:
        return
    ask = plugin.query_job_status

    async def query_job_status(command, logger):
        states, seconds = await ask(command, logger)
        return ({}, 0.0) if states is None else (states, seconds)

    plugin.query_job_status = query_job_status
