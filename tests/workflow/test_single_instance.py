"""One snakemake at a time; what a killed one leaves goes (workflow/scripts/single_instance.py)."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from miniature import PROJECT
from scripts import script

# A process that is alone in the folder, starts another one, and does not end by itself.
WORK = """
import subprocess, sys, time
sys.path.insert(0, {scripts!r})
import single_instance
try:
    lock = single_instance.take_over()
except single_instance.AnotherInstance as reason:
    sys.exit(str(reason))
if sys.argv[1:] == ["end"]:
    single_instance.release(lock)
    sys.exit()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    program = WORK.format(scripts=str(PROJECT / "workflow" / "scripts"))
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def at_work(tmp_path):
    """A process at work in the folder, and the one that it has started."""
    process = start(tmp_path)
    child = psutil.Process(int(process.stdout.readline()))
    yield process, child
    process.kill()
    process.communicate()
    if alive(child):
        child.kill()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def here(process: subprocess.Popen) -> str:
    return f"{socket.gethostname()} process {process.pid}"


def test_a_second_one_is_told_who_is_at_work(at_work, tmp_path):
    second = start(tmp_path, "end")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said == f"another snakemake is running in this folder ({here(at_work[0])})\n"


def test_what_a_killed_snakemake_left_is_removed(at_work, tmp_path):
    process, child = at_work
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir()
    (locks / "0.input.lock").write_text("data\n")
    process.kill()
    process.wait()
    assert alive(child)
    second = start(tmp_path, "end")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert said.splitlines() == [
        f"vlae: the last snakemake here ({here(process)}) was killed; cleaning up after it",
        "vlae: stopping the 1 processes that an earlier run left here",
    ]
    assert not alive(child)
    assert not locks.exists()
    third = start(tmp_path, "end")
    assert third.communicate(timeout=60) == ("", "")


def test_one_on_another_machine_may_be_alive(tmp_path):
    note = tmp_path / ".snakemake" / "vlae" / "lock"
    note.parent.mkdir(parents=True)
    note.write_text("elsewhere process 7")
    second = start(tmp_path, "end")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said.startswith(
        "the last snakemake here (elsewhere process 7) is running or was killed"
    )
    assert "`snakemake --unlock`" in said
    assert note.read_text() == "elsewhere process 7"


UUID = "2f9c1f0e-6f0b-4b8e-9a35-5d0b1c6f7a10"


@pytest.fixture
def jobs_left(monkeypatch, tmp_path):
    """jobs_left(row, ...): those of the rows that squeue tells, in which HERE is this folder;
    without a row squeue fails."""
    monkeypatch.syspath_prepend(str(PROJECT / "workflow" / "scripts"))
    instance = script("single_instance")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / instance.JOBS).parent.mkdir(parents=True)

    def left(*rows):
        text = "\n".join(rows).replace("HERE", str(tmp_path))
        code = f"cat <<'X'\n{text}\nX" if rows else "echo no controller >&2; exit 1"
        (programs / "squeue").write_text(f"#!/bin/sh\n{code}\n")
        (programs / "squeue").chmod(0o755)
        return instance.jobs_left()

    left.instance = instance
    return left


@pytest.mark.parametrize(
    ("row", "ours"),
    [
        (f"7|{UUID}|rule_train_wildcards_a|HERE", True),
        (f"7|{UUID}|charged to somebody|HERE", True),
        (f"7|project-a_{UUID}|charged | to somebody|HERE", True),
        ("7|wrap|charged to somebody|HERE", True),
        ("7|renamed|rule_train|HERE", True),
        ("7|renamed|group_shards|HERE", True),
        (f"7|{UUID}|rule_train|/elsewhere", False),
        ("7|my_analysis|(null)|HERE", False),  # a job that the user has submitted
        (f"8|{UUID}|rule_train|HERE", False),  # in which this is run
        ("9|renamed|charged to somebody|/another/name/of/this/folder", True),  # noted
    ],
)
def test_jobs_are_known_whatever_a_site_rewrites(jobs_left, monkeypatch, row, ours):
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    jobs_left.instance.note_job("9")
    assert jobs_left(row, "1|bash|(null)|/home") == [row[0]] * ours


def test_squeue_has_to_answer_where_jobs_were_submitted(jobs_left):
    assert jobs_left() == []
    jobs_left.instance.note_job("9")
    with pytest.raises(
        jobs_left.instance.AnotherInstance, match=r"squeue fails \(no controller\)"
    ):
        jobs_left()


def test_jobs_of_one_that_ended_while_slurm_was_silent_go_too(jobs_left, tmp_path):
    jobs_left.instance.note_job("9")
    gone = tmp_path / "gone"
    jobs_left(f"$(test -e {gone} || echo '9|renamed||/')")
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(squeue.read_text().replace("'X'", "X"))
    (tmp_path / "bin" / "scancel").write_text(f'#!/bin/sh\necho "$@" > {gone}\n')
    (tmp_path / "bin" / "scancel").chmod(0o755)
    process = start(tmp_path, "end")
    assert process.communicate(timeout=60) == (
        "",
        "vlae: cancelling the 1 jobs that it left in the queue\n",
    )
    assert gone.read_text() == "9\n"
    assert not (tmp_path / jobs_left.instance.JOBS).exists()


@pytest.mark.parametrize(("text", "stays"), [("", False), ('{"read": ', False), ("{}", True)])
def test_a_half_written_list_of_dvcs_locks_goes(tmp_path, text, stays):
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert start(tmp_path, "end").wait(60) == 0
    assert path.exists() == stays


def test_of_dvcs_locks_those_of_living_processes_stay(tmp_path):
    """Not a zombie's (nobody has waited for it), and not those of whoever has its number now."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "repro", "train@x"]
    living, zombie = subprocess.Popen(command), subprocess.Popen(command)
    gone = subprocess.Popen(["true"])
    gone.wait()
    zombie.kill()
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)

    def entry(process: subprocess.Popen, command: str) -> dict:
        return {"pid": process.pid, "cmd": command}

    held, other = entry(living, "dvc repro train@x"), entry(living, "dvc repro train@y")
    ended = [entry(zombie, "dvc repro train@x"), entry(gone, "dvc repro train@x"), other]
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps(
            {
                "write": {"held": held, **{f"ended {i}": by for i, by in enumerate(ended)}},
                "read": {"both": [*ended, held], "ended": ended},
            }
        )
    )
    try:
        assert start(tmp_path, "end").wait(60) == 0
    finally:
        living.kill()
        living.wait()
        zombie.wait()
    assert json.loads(path.read_text()) == {
        "write": {"held": held},
        "read": {"both": [held], "ended": []},
    }
