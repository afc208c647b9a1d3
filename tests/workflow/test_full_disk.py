"""A file system that is full: one line, nothing old is lost, and with space again it goes on."""

import os
import subprocess
import time

import pytest

from one_run import MODEL, RUN, history, prepared_project, trainer, undisturbed_weights
from pipeline import Workflow
from small_disk import FULL, empty, fill
from vlae.storage.write import sha256

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system"),
]

COMMAND = ("snakemake", "--cores", "2", "--show-failed-logs", "--set-threads", "train=1", "--")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Workflow:
    """A project whose data set is there and whose run is not trained."""
    return prepared_project(tmp_path_factory.mktemp("full"), 20)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> str:
    """SHA-256 of the weights of a training that nothing disturbed."""
    return undisturbed_weights(prepared, tmp_path_factory.mktemp("undisturbed") / "project")


@pytest.mark.parametrize("place", ["scratch", "cache", "project"])
def test_what_was_there_stays_and_it_goes_on(
    prepared, undisturbed, record, tmp_path, small, place
):
    folder = small / "project" if place == "project" else tmp_path / "project"
    workflow = prepared.copy_to(folder)
    workflow.env["VLAE_CHECKPOINT_SECONDS"] = "0.2"
    if place == "scratch":
        (folder / "scratch").symlink_to(small)
    if place == "cache":
        workflow.do("dvc", "cache", "dir", str(small / "cache"))
    lock = workflow.read("dvc.lock")
    started = time.monotonic()
    first = subprocess.Popen(
        [*COMMAND, MODEL],
        cwd=folder,
        env=workflow.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not history(workflow):
        assert first.poll() is None
        time.sleep(0.05)
    process = trainer(workflow)
    process.suspend()
    fill(small)
    (state,) = (folder / "scratch" / RUN).glob("state-*.safetensors")
    process.resume()
    said, _ = first.communicate(timeout=600)
    assert first.returncode != 0
    assert FULL in said
    assert "Traceback" not in said
    assert workflow.read("dvc.lock") == lock
    kept = history(workflow)[-1]["to_step"]  # the state can be read
    assert state.exists()

    empty(small)
    workflow.do(*COMMAND, MODEL)
    assert sha256(folder / MODEL) == undisturbed
    assert "up to date" in workflow.do("dvc", "status", f"train@{RUN}")
    assert history(workflow)[-1]["from_step"] >= kept
    record(
        "full-disk",
        "A full disk",
        "The file system of one folder is full in mid-training; the same command again when "
        "there is space.",
        {
            "Full": place,
            "Said": FULL,
            "Went on from step": f"{kept} of {history(workflow)[-1]['to_step']}",
            "Seconds in all": f"{time.monotonic() - started:.0f}",
            "Weights": "identical",
        },
    )
