"""The pipeline, once run, for all tests of it."""

import pytest

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
