"""dvc.lock, the record of everything: ten jobs write it at once, and it is never half written."""

import copy
import random
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from miniature import PROJECT
from one_run import MODEL, RUN, prepared_project
from pipeline import Workflow
from vlae.storage.write import sha256

pytestmark = [pytest.mark.slow, pytest.mark.faults]

TEN = [f"{RUN}_{i}" for i in range(10)]
HIDDEN = 1200  # makes a checkpoint of 12 MB, a state of 47
KILLS = 40
REPRO = (sys.executable, "workflow/scripts/dvc_patched.py", "--wait-for-lock", "repro")


def stages(workflow: Workflow) -> dict:
    return yaml.safe_load(workflow.read("dvc.lock"))["stages"]


def model_of(run: str) -> str:
    return MODEL.replace(RUN, run)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Workflow:
    """A project whose data set is there and whose run is not trained."""
    return prepared_project(tmp_path_factory.mktemp("recording"), 1)


def test_ten_jobs_record_at_once(prepared, record, tmp_path):
    """Their trainings are complete: each job writes its results, and DVC its record."""
    workflow = prepared.copy_to(tmp_path / "project")

    def ten_runs(tree):
        block = tree["runs"].pop(RUN)
        for part in ("prior", "posterior"):
            tree["defaults"]["binary"]["model"][part]["hidden"] = HIDDEN
        for i, run in enumerate(TEN):
            tree["runs"][run] = {**copy.deepcopy(block), "training": {"seed": i}}

    workflow.edit_params(ten_runs)
    workflow.do("dvc", "repro", "-q", "--single-item", "recipes")
    for run in TEN:
        workflow.do("vlae", "train", run)
    trained = {run: sha256(workflow.folder / model_of(run)) for run in TEN}
    size = (workflow.folder / model_of(TEN[0])).stat().st_size
    shutil.rmtree(workflow.folder / "results" / "checkpoints")

    started = time.monotonic()
    command = ["snakemake", "--cores", "10", "--set-threads", "train=1", "--"]
    workflow.do(*command, *map(model_of, TEN))
    seconds = time.monotonic() - started
    assert {f"train@{run}" for run in TEN} < stages(workflow).keys()
    assert "up to date" in workflow.do("dvc", "status", *(f"train@{run}" for run in TEN))
    shutil.rmtree(workflow.folder / "results" / "checkpoints")  # all of it is in the cache
    workflow.do("snakemake", "--cores", "1", "--", *map(model_of, TEN))
    assert {run: sha256(workflow.folder / model_of(run)) for run in TEN} == trained
    record(
        "recording",
        "Ten jobs that record at once",
        "Ten trainings that are complete but for their record, `snakemake --cores 10`.",
        {
            "Jobs": "10",
            "Megabytes each": f"{size / 1e6:.0f}",
            "Recorded": "10",
            "Restored from the cache, identical": "10",
            "Seconds": f"{seconds:.0f}",
        },
    )


def test_killed_while_it_writes_the_record(prepared, record, tmp_path):
    """SIGKILL of DVC around the moment at which it writes a dvc.lock as long as the real one."""
    workflow = prepared.copy_to(tmp_path / "project")
    path = workflow.folder / "dvc.lock"
    new = workflow.folder / "dvc.lock.tmp"
    lock = yaml.safe_load(workflow.read("dvc.lock"))
    others = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]
    lock["stages"] = {f"{name}_": stage for name, stage in others.items()} | lock["stages"]
    path.write_text(yaml.safe_dump(lock, sort_keys=False))
    stage = f"train@{RUN}"
    before = path.read_bytes()
    command = [*REPRO, "-q", "--single-item", stage]
    workflow.do(*command)
    after = path.read_bytes()
    assert stage in stages(workflow)
    weights = sha256(workflow.folder / MODEL)

    chance = random.Random(0)
    found = dict.fromkeys(("before it was written", "half written", "afterwards"), 0)
    started = time.monotonic()
    for _ in range(KILLS):
        path.write_bytes(before)
        new.unlink(missing_ok=True)
        process = subprocess.Popen(command, cwd=workflow.folder, env=workflow.env)
        while process.poll() is None and not new.exists() and path.read_bytes() == before:
            time.sleep(0.0005)
        # Half of them at once: a quick machine has written all of it in milliseconds.
        time.sleep(chance.uniform(0, chance.choice((0.001, 1.5))))
        process.kill()
        process.wait()
        content = path.read_bytes()
        assert content in (before, after)
        moment = "afterwards" if content == after else "half written"
        found[moment if new.exists() or content == after else "before it was written"] += 1
    assert found["half written"]

    workflow.do("snakemake", "--cores", "2", "--", MODEL)
    assert path.read_bytes() == after
    assert "up to date" in workflow.do("dvc", "status", "fetch@static_mnist", stage)
    assert sha256(workflow.folder / MODEL) == weights
    record(
        "killed-recording",
        "Killed while it records",
        f"SIGKILL of DVC while it writes a `dvc.lock` of {len(after) // 1000} kB, which is there "
        "as it was before or as it is to be.",
        {
            "Kills": str(KILLS),
            **{f"of them {moment}": str(count) for moment, count in found.items()},
            "Damaged records": "0",
            "Seconds in all": f"{time.monotonic() - started:.0f}",
        },
    )


def test_a_damaged_record_is_one_line(prepared, tmp_path):
    """What DVC alone may leave, or a text editor."""
    workflow = prepared.copy_to(tmp_path / "project")
    text = workflow.read("dvc.lock")
    (workflow.folder / "dvc.lock").write_text(text[: text.index("md5:") + 2])
    done = workflow.call("snakemake", "--cores", "2", "--", MODEL)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Using")]
    assert line.startswith("vlae: error: ")
    assert "dvc.lock" in line
    assert "git checkout dvc.lock" in line
