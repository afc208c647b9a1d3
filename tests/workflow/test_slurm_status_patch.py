"""A question to SLURM that is not answered says nothing about any job (slurm_status_patch.py)."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from miniature import PROJECT

plugin = pytest.importorskip("snakemake_executor_plugin_slurm")


@pytest.fixture
def ask(monkeypatch):
    """ask(command): the states of the jobs, as Snakemake is told after `install`."""
    monkeypatch.syspath_prepend(str(PROJECT / "workflow" / "scripts"))
    monkeypatch.setattr(plugin, "query_job_status", plugin.query_job_status)
    import slurm_status_patch

    slurm_status_patch.install()
    return lambda *command: asyncio.run(
        plugin.query_job_status(" ".join(command), logging.getLogger())
    )


def test_an_answer_is_passed_on(ask):
    assert ask("echo", "7|RUNNING")[0] == {"7": "RUNNING"}


@pytest.mark.parametrize("command", ["false", "/no/such/squeue"])
def test_no_answer_is_an_empty_one(ask, command):
    assert ask(command) == ({}, 0.0)


def test_the_plugin_asks_by_this_function():
    """If it does not any more, the workflow has lost its patience."""
    source = Path(sys.modules[plugin.__name__].__file__).read_text()
    assert "await query_job_status(" in source
