"""SIGKILL without a cluster: of the trainer, a hundred times, of DVC, Snakemake and the shell."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from itertools import pairwise
from os.path import basename

import psutil
import pytest

from miniature import small_params, write_data
from one_run import MODEL, RUN, history, prepared_project, trainer, undisturbed_weights
from processes import Command
from vlae.storage.write import sha256

KILLS = 100
EPOCHS = 150  # of 10 steps; a checkpoint after every step


@pytest.mark.slow
@pytest.mark.faults
def test_a_hundred_kills(tmp_path, record):
    write_data(tmp_path, small_params(tmp_path, {"epochs": EPOCHS}))
    model = tmp_path / "results" / "checkpoints" / RUN / "model.safetensors"
    command = Command(tmp_path, "train", RUN)
    assert command.wait() == 0, command.stderr
    undisturbed = sha256(model)
    steps = json.loads((model.parent / "train.json").read_text())["steps"]
    shutil.rmtree(tmp_path / "results")
    shutil.rmtree(tmp_path / "scratch")

    chance = random.Random(0)
    started = time.monotonic()
    kills = dict.fromkeys(("before a first step", "between two saves", "while saving"), 0)
    while sum(kills.values()) < KILLS:
        before = newest(tmp_path)
        command = Command(tmp_path, "train", RUN, "--checkpoint-seconds", "0.001")
        if chance.random() < 0.9:
            wait_for_a_checkpoint(command, tmp_path, before)
        time.sleep(chance.uniform(0, 0.05))
        command.process.kill()
        assert command.wait() == -signal.SIGKILL, f"done after {kills}: {command.stderr}"
        if half_written(tmp_path):
            kills["while saving"] += 1
        elif newest(tmp_path) == before:
            kills["before a first step"] += 1
        else:
            kills["between two saves"] += 1
    command = Command(tmp_path, "train", RUN)
    assert command.wait() == 0, command.stderr
    assert sha256(model) == undisturbed
    assert not half_written(tmp_path)
    assert json.loads((model.parent / "train.json").read_text())["steps"] == steps
    record(
        "soak",
        "A hundred kills",
        f"A training of {steps} steps that saves its state after every step, without a cluster: "
        "SIGKILL at random moments, and the same command again.",
        {
            "Kills": str(sum(kills.values())),
            **{f"of them {moment}": str(count) for moment, count in kills.items()},
            "Seconds in all": f"{time.monotonic() - started:.0f}",
            "Weights": "identical",
        },
    )


def newest(folder) -> int:
    states = (folder / "scratch").glob("*/state-*.safetensors")
    return max((path.stat().st_mtime_ns for path in states), default=0)


def wait_for_a_checkpoint(command, folder, before) -> None:
    while command.running() and newest(folder) == before:
        time.sleep(0.002)


def half_written(folder) -> list:
    return list((folder / "scratch").glob("*/.state-*"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project whose data set is there and whose run is not trained."""
    return prepared_project(tmp_path_factory.mktemp("kills"), 100)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> str:
    """SHA-256 of the weights of a training that nothing disturbed."""
    return undisturbed_weights(prepared, tmp_path_factory.mktemp("undisturbed") / "project")


def ancestor(process: psutil.Process, program: str) -> psutil.Process:
    """The topmost process above this one that runs the program itself, and no shell that does."""
    above = [p for p in process.parents() if program in map(basename, p.cmdline()[:2])]
    return above[-1]


def wait_for_the_end(process: psutil.Process, seconds: float = 600) -> None:
    """Of a process that is not a child, and that perhaps nobody waits for."""
    end = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, f"{process} does not end"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("snakemake", "stopping the"),
        ("dvc_patched.py", "stopping the"),
        ("trainer", f"train {RUN}: never trained"),
    ],
)
def test_killed_on_one_machine_the_same_command_goes_on(
    prepared, undisturbed, record, tmp_path, victim, said
):
    workflow = prepared.copy_to(tmp_path / "project")
    workflow.env["VLAE_CHECKPOINT_SECONDS"] = "0.5"
    command = ["snakemake", "--cores", "2", "--set-threads", "train=1", "--", MODEL]
    started = time.monotonic()
    first = subprocess.Popen(command, cwd=workflow.folder, env=workflow.env)
    while not history(workflow):
        assert first.poll() is None
        time.sleep(0.1)
    process = trainer(workflow)
    (process if victim == "trainer" else ancestor(process, victim)).kill()
    assert first.wait() != 0
    assert "up to date" not in workflow.call("dvc", "status", f"train@{RUN}").stdout
    assert said in workflow.do(*command)
    assert not process.is_running()
    assert sha256(workflow.folder / MODEL) == undisturbed
    assert "up to date" in workflow.do("dvc", "status", f"train@{RUN}")
    starts = history(workflow)
    assert all(after["from_step"] == before["to_step"] for before, after in pairwise(starts))
    name = "dvc" if victim == "dvc_patched.py" else victim
    note(record, f"SIGKILL of {name}", starts, started)


def note(record, what: str, starts: list[dict], started: float) -> None:
    """A row of the report."""
    record(
        "kills",
        "Killed on one machine",
        "`snakemake --cores all`, disturbed in mid-training, and the same command again.",
        {
            "What happened": what,
            "Commands": "2",
            "Went on from step": f"{starts[-1]['from_step']} of {starts[-1]['to_step']}",
            "Seconds in all": f"{time.monotonic() - started:.0f}",
            "Weights": "identical",
        },
    )


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "everyone", "what"),
    [
        (signal.SIGHUP, True, "the terminal was closed: SIGHUP to the shell and all below it"),
        (signal.SIGKILL, True, "SIGKILL of the shell and all below it"),
        (signal.SIGKILL, False, "SIGKILL of the shell alone"),
    ],
)
def test_the_shell_goes(prepared, undisturbed, record, tmp_path, number, everyone, what):
    """As when an ssh connection ends. Of a shell that goes alone snakemake takes no notice."""
    workflow = prepared.copy_to(tmp_path / "project")
    workflow.env["VLAE_CHECKPOINT_SECONDS"] = "0.5"
    command = ["snakemake", "--cores", "2", "--set-threads", "train=1", "--", MODEL]
    started = time.monotonic()
    shell = subprocess.Popen(
        ["bash", "-c", f"{shlex.join(command)}; true"],
        cwd=workflow.folder,
        env=workflow.env,
        start_new_session=True,
        # Whoever runs the tests by nohup has SIGHUP ignored, which a child inherits.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    while not history(workflow):
        assert shell.poll() is None
        time.sleep(0.1)
    process = trainer(workflow)
    (os.killpg if everyone else os.kill)(shell.pid, number)
    assert shell.wait() == -number
    if not everyone:
        done = workflow.call(*command)
        assert done.returncode == 2
        assert "another snakemake is running in this folder" in done.stderr
        wait_for_the_end(ancestor(process, "snakemake"))
    workflow.do(*command)
    assert sha256(workflow.folder / MODEL) == undisturbed
    assert "up to date" in workflow.do("dvc", "status", f"train@{RUN}")
    starts = history(workflow)
    assert len(starts) == (2 if everyone else 1)
    assert all(after["from_step"] == before["to_step"] for before, after in pairwise(starts))
    note(record, what, starts, started)
