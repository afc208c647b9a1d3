"""The pipeline, once run, for all tests of it, and a SLURM cluster."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import slurm
from pipeline import RUNS, Workflow, new_workflow


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Workflow:
    """The project after one complete run, its results published and committed."""
    workflow = new_workflow(tmp_path_factory.mktemp("workflow"), RUNS)
    workflow.snakemake()
    assert workflow.trained() == set(RUNS)
    workflow.do("dvc", "push", "-q", "--run-cache")
    workflow.commit("the results")
    return workflow


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The cluster, for one file of tests at a time, left as it was found: up or down. Where it was
    asked for, not to have one is a failure."""
    with open(Path(tempfile.gettempdir(), "vlae-cluster.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may run another file
        was_up = slurm.running("slurmctld")
        try:
            confinement = slurm.up()
        except slurm.ClusterError as reason:
            if slurm.ASKED_FOR:
                raise
            pytest.skip(str(reason))
        yield confinement
        if not was_up:
            slurm.down()
