"""On a file system without flock: what goes on, and the one line where something has to be set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from miniature import PROJECT

# As Lustre answers where it is mounted without -o flock.
SHIM = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOSYS; return -1; }
"""
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(
    not (COMPILER and sys.platform == "linux"), reason="needs Linux and a C compiler"
)
ALONE = "import single_instance; single_instance.release(single_instance.take_over())"
TRAINING = """
import pathlib, vlae.logs, vlae.training.saved_state
vlae.logs.to_stderr()
with vlae.training.saved_state.exclusive(pathlib.Path("state.safetensors")):
    print("trains")
"""


@pytest.fixture(scope="module")
def without_flock(tmp_path_factory):
    """The environment of a process whose every flock fails."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, folder / "shim.c"], check=True)
    paths = [str(PROJECT / "src"), str(PROJECT / "workflow" / "scripts")]
    return {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def repository(tmp_path) -> Path:
    """DVC with a single stage."""
    dvc(tmp_path, None, "init", "-q", "--no-scm")
    stage = "stages: {copy: {cmd: cp from to, deps: [from], outs: [to]}}"
    (tmp_path / "dvc.yaml").write_text(stage)
    (tmp_path / "from").write_text("content")
    return tmp_path


def python(folder: Path, environment: dict | None, *arguments: str):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def dvc(folder: Path, environment: dict | None, *arguments: str) -> None:
    done = python(folder, environment, "-m", "dvc", *arguments)
    assert done.returncode == 0, done.stderr


def test_one_line_says_what_to_set_before_dvc_waits_for_ever(repository, without_flock):
    done = python(repository, without_flock, "-c", ALONE)
    assert done.stderr.splitlines()[-1] == (
        "single_instance.AnotherInstance: this file system has no locks (flock: Function not "
        "implemented); "
        "run `dvc config --local core.hardlink_lock true` first"
    )


def test_with_it_set_stages_are_run_and_recorded(repository, without_flock):
    dvc(repository, None, "config", "--local", "core.hardlink_lock", "true")
    assert python(repository, without_flock, "-c", ALONE).returncode == 0
    script = str(PROJECT / "workflow" / "scripts" / "dvc_patched.py")
    command = (script, "--wait-for-lock", "repro", "-q", "--single-item", "copy")
    done = python(repository, without_flock, *command)
    assert done.returncode == 0, done.stderr
    assert (repository / "to").read_text() == "content"
    assert "copy:" in (repository / "dvc.lock").read_text()


def test_a_training_says_that_nothing_keeps_another_one_away(tmp_path, without_flock):
    done = python(tmp_path, without_flock, "-c", TRAINING)
    assert done.stdout == "trains\n"
    (said,) = done.stderr.splitlines()
    assert "state.safetensors: this file system has no locks (flock: Function" in said
